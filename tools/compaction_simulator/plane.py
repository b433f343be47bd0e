"""The plane of keys and LSNs, without pages: which layers a stripe has, and in which files.

LSNs are numbers of flushes. A layer holds versions with LSNs in lsn_start … lsn_end - 1; an image
layer is at one LSN and has no other. Whatever is written goes through `Plane`, which adds it up.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

START = -1
"""LSN of what was there before the first flush."""


class File:
    """A bundle: it takes its space until its last layer is dead."""

    def __init__(self) -> None:
        self.bytes_total = 0
        self.bytes_live = 0
        self.layers_live = 0
        self.layers: list[Layer] = []

    def add(self, layer: "Layer") -> None:
        layer.file = self
        self.layers.append(layer)
        self.layers_live += 1
        self.bytes_total += layer.stored
        self.bytes_live += layer.stored


class Layer:
    """Versions of one stripe, `stored` bytes of them; `file` is None when it is dead."""

    __slots__ = ("file", "lsn_end", "lsn_start", "stored", "versions")

    def __init__(self, stored: int, versions: int, lsn_start: int, lsn_end: int) -> None:
        self.stored = stored
        self.versions = versions
        self.lsn_start = lsn_start
        self.lsn_end = lsn_end
        self.file: File | None = None


@dataclass(slots=True)
class Stripe:
    """One stripe's L1 layers, each list oldest first. `debt`: deltas above the newest image."""

    number: int
    n_blocks: int
    debt: list[Layer] = field(default_factory=list)
    past: list[Layer] = field(default_factory=list)
    images: list[Layer] = field(default_factory=list)

    @property
    def debt_bytes(self) -> int:
        return sum(layer.stored for layer in self.debt)

    @property
    def debt_versions(self) -> int:
        return sum(layer.versions for layer in self.debt)

    @property
    def newest_first(self) -> list[int]:
        """Sizes of the debt's layers."""
        return [layer.stored for layer in reversed(self.debt)]

    @property
    def image_bytes(self) -> int:
        return self.images[-1].stored if self.images else 0

    def base(self, lsn: int) -> Layer | None:
        """The newest image at or below an LSN."""
        at = [image for image in self.images if image.lsn_start <= lsn]
        return at[-1] if at else None

    def layers_at(self, lsn: int) -> int:
        """How many layers a read at an LSN looks into: its image, and deltas above that."""
        base = self.base(lsn)
        floor = base.lsn_end if base else START
        deltas = sum(
            layer.lsn_start <= lsn and layer.lsn_end > floor
            for layers in (self.past, self.debt)
            for layer in layers
        )
        return deltas + (base is not None)


class Plane:
    """All stripes and files, and what was written for which reason."""

    def __init__(self, file_bytes: int) -> None:
        """file_bytes: how large a file with the layers of many stripes gets."""
        self.stripes: dict[int, Stripe] = {}
        self.bytes_stored = 0
        self.written = {"merge": 0, "image": 0, "rewrite": 0}
        self.dying: dict[File, None] = {}
        """Files some of whose layers are dead."""
        self._file_bytes = file_bytes
        self._generations: dict[int, None] = {}

    def write(self, layers: Iterable[tuple[Layer, bool]], reason: str) -> None:
        """Write layers to new files; True: into one of its own."""
        shared = File()
        for layer, is_alone in layers:
            if shared.bytes_total >= self._file_bytes:
                shared = File()
            (File() if is_alone else shared).add(layer)
            self.bytes_stored += layer.stored
            self.written[reason] += layer.stored

    def kill(self, layer: Layer) -> None:
        """A layer that nobody needs any more; its file goes with its last one."""
        file = layer.file
        assert file is not None, "a layer dies once"
        layer.file = None
        file.bytes_live -= layer.stored
        file.layers_live -= 1
        if file.layers_live:
            self.dying[file] = None
        else:
            self.bytes_stored -= file.bytes_total
            self.dying.pop(file, None)

    def rewrite(self, file: File) -> None:
        """Copy a file's live layers to a new one, so that it can go."""
        live = [layer for layer in file.layers if layer.file is file]
        for layer in live:
            self.kill(layer)
        self.write(((layer, False) for layer in live), "rewrite")

    def replace(self, stripe: Stripe, count: int, merged: Layer) -> None:
        """`merged` in place of a stripe's newest `count` delta layers."""
        keep = len(stripe.debt) - count
        for layer in stripe.debt[keep:]:
            self.kill(layer)
        stripe.debt[keep:] = [merged]

    def place_image(self, stripe: Stripe, image: Layer) -> None:
        """An image at its LSN: deltas wholly at or below it are no debt any more."""
        stripe.images.append(image)
        stripe.past += [layer for layer in stripe.debt if layer.lsn_end <= image.lsn_end]
        stripe.debt = [layer for layer in stripe.debt if layer.lsn_end > image.lsn_end]
        self._generations[stripe.number] = None

    def collect(self, horizon: int) -> None:
        """Kill what no read at or above the horizon needs: all below a stripe's image there."""
        for number in list(self._generations):
            stripe = self.stripes[number]
            base = stripe.base(horizon)
            if base is None:
                continue
            for image in stripe.images:
                if image.lsn_start < base.lsn_start:
                    self.kill(image)
            for layer in stripe.past:
                if layer.lsn_end <= base.lsn_end:
                    self.kill(layer)
            stripe.images = [image for image in stripe.images if image.file]
            stripe.past = [layer for layer in stripe.past if layer.file]
            if not stripe.past and len(stripe.images) == 1:
                del self._generations[number]
