"""Images of stripes: which stripes want one, and the job that makes them.

An image at an LSN says the same as the image and the deltas up to there: reads from there on start
with it, and what lies below goes as soon as the horizon has passed it.
"""

from collections.abc import Callable, Iterator, Sequence

from engine.bundle_writer import BundleInfo, BundleWriter
from engine.compaction_policy import Policy
from engine.errors import RequestError
from engine.layer_damage import Damage
from engine.layer_store import LayerStore
from engine.pruning import in_l0
from engine.stripe_image import StripeImages
from engine.stripe_layers import Generation, Stripe, newest_generation
from engine.version_store import VersionStore
from formats.errors import CorruptionError
from formats.file_name import FileKind
from formats.index_value import LayerEntry

IMAGE_BYTES_MAX = 128 << 20  # of pages in one image bundle, before the next stripe gets another


class ImageJob:
    """Used by the thread that compacts."""

    def __init__(
        self,
        layers: LayerStore,
        versions: VersionStore,
        create_bundle: Callable[[FileKind], BundleWriter],
        damage: Damage,
    ) -> None:
        self.wanting: set[Stripe] = set()
        self.is_garbage_below = False  # an image at the horizon was made: what lies below can go
        self.pages = StripeImages(versions)
        self._layers = layers
        self._versions = versions
        self._create_bundle = create_bundle
        self._damage = damage

    def judge(
        self,
        policy: Policy,
        stripe: Stripe,
        layers: Sequence[LayerEntry],
        retained: Sequence[int] = (),
        horizon: int = 0,
    ) -> None:
        """Whether a stripe shall have an image: its debt calls for one, or it is all below the
        horizon, and an image would be the lesser part of what it takes."""
        newest = newest_generation(layers)
        is_over = bool(newest.deltas) and newest.is_over(retained, horizon)
        if (
            not newest.deltas
            or not (is_over or _needs_image(policy, newest, 1))  # nor would it with more blocks
            or stripe in self._damage.stripes
        ):
            return
        n_blocks = self._blocks(stripe, self._lsn(newest))
        if n_blocks and (
            _needs_image(policy, newest, n_blocks)
            or (is_over and _is_worth_ending(policy, newest, n_blocks))
        ):
            self.wanting.add(stripe)

    def run(self) -> Iterator[bool]:
        """Image layers of the stripes that want one, in the order of their keys."""
        while self.wanting:
            done, info = self._write()
            if info is not None:  # a commit that fails may have made it count: it stays
                self._layers.commit([info], is_merged=True)
            self.wanting -= done
            yield True

    def _lsn(self, newest: Generation) -> int:
        """From where on an image says the same as the deltas; below the horizon nobody reads."""
        return max(newest.lsn_newest, self._versions.horizon_lsn)

    def _blocks(self, stripe: Stripe, lsn: int) -> int:
        """How many blocks an image has; 0: none now, as L0 or memtables have versions that it would
        have in it. Reads look there first, and would pass by the image, to layers that may have
        gone; or those versions are still to come, to the end of the base backup."""
        if lsn > self._versions.durable_lsn:
            return 0
        for reader, rows in in_l0(self._layers, [stripe]):
            if any(reader.directory.lsn_start(row) <= lsn for row in rows):
                return 0  # the horizon has passed it; once it is merged, it is judged anew
        try:
            return self.pages.blocks(stripe, lsn)
        except RequestError:
            return 0  # the horizon has passed `lsn` just now: the next survey judges anew
        except CorruptionError as error:  # in the relation's history
            self._damage.report(stripe, error)
            return 0

    def _write(self) -> tuple[set[Stripe], BundleInfo | None]:
        """A bundle, if there is anything for one, and the stripes that are done with."""
        writer = self._create_bundle(FileKind.IMAGE)
        try:
            done, added = self._add_stripes(writer)
            if added:
                return done, writer.finish()
        except CorruptionError:
            done = set[Stripe]()  # what is there of a damaged stripe cannot be taken out again
        except BaseException:
            writer.abort()
            raise
        writer.abort()
        return done, None

    def _add_stripes(self, writer: BundleWriter) -> tuple[set[Stripe], int]:
        """Fill a bundle; returns the stripes that are done with, and the bytes of their pages."""
        done, added = set[Stripe](), 0
        for stripe in sorted(self.wanting):
            if added >= IMAGE_BYTES_MAX:
                break
            added += self._add_stripe(writer, stripe)
            done.add(stripe)
        return done, added

    def _add_stripe(self, writer: BundleWriter, stripe: Stripe) -> int:
        """Returns the bytes of pages that were added; CorruptionError if one is damaged, and the
        stripe gets no image."""
        newest = newest_generation(self._layers.index.stripe(*stripe))
        if not newest.deltas:
            return 0  # they went in the meantime, with the relation
        lsn = self._lsn(newest)
        n_blocks = self._blocks(stripe, lsn)
        try:
            self.pages.write(writer, stripe, lsn, n_blocks)
        except CorruptionError as error:
            self.wanting.discard(stripe)
            self._damage.report(stripe, error)
            raise
        if lsn <= self._versions.horizon_lsn:
            self.is_garbage_below = True
        return n_blocks << 13


def _needs_image(policy: Policy, newest: Generation, n_blocks: int) -> bool:
    image_bytes = 0 if newest.image is None else newest.image.bytes_stored
    return policy.needs_image(newest.bytes_stored, newest.versions, image_bytes, n_blocks)


def _is_worth_ending(policy: Policy, newest: Generation, n_blocks: int) -> bool:
    image = newest.image
    image_bytes, image_blocks = (image.bytes_stored, image.versions) if image else (0, 0)
    return policy.is_worth_ending(newest.bytes_stored, image_bytes, image_blocks, n_blocks)
