"""What a batch of reads will need of bundles that lie in a bucket, asked for at once.

    a read misses a block ──> the layers that all open requests are still to see, by the index and
    the directories ──> the ends of bundles that are not open ──> each request's frame of each layer

A request to a bucket takes as long as thousands of pages do, and a page that goes through six
layers needs six. So when the first of them is missing (Storage.foreseeing) the batch is gone
through as if no version ended a read but the image that its stripe's newest image layer has, and
what is then missing comes together. A version that ends a read earlier makes some of it vain; what
cannot be foreseen (a chain that goes on in the frame before) is the next miss's.

A batch that needs nothing of a bucket asks nothing here. Errors are left to the read that follows:
it meets them again, request by request.
"""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from engine.bundle_reader import BundleReader
from engine.frame_cache import FrameCache
from engine.layer_query import LayerQuery
from engine.storage import File, Storage
from formats.errors import CorruptionError
from formats.file_name import FileName

OPENED_AT_ONCE = 64  # bundles


class Visit(NamedTuple):
    """A bundle that requests of a query, its hits, must see."""

    name: FileName
    reader: BundleReader | None  # if it is at hand
    is_image: bool  # what it has ends their reads


class Foresight:
    """Of one layer map. Used by any number of threads."""

    def __init__(
        self,
        storage: Storage,
        directory: Path,
        cache: FrameCache,
        visits: Callable[[LayerQuery], Iterator[Visit]],
        open_bundle: Callable[[FileName], BundleReader],
    ) -> None:
        """`directory` is where the bundles lie; `visits` and `open_bundle` are the layer map's."""
        self._storage = storage
        self._directory = directory
        self._cache = cache
        self._visits = visits
        self._open_bundle = open_bundle

    def bring(self, query: LayerQuery) -> None:
        """Ask for what the open requests of a query are going to read."""
        closed = dict.fromkeys(
            visit.name
            for visit, _ in self._walk(query)
            if visit.reader is None or not visit.reader.is_open
        )
        opening = list(closed)[:OPENED_AT_ONCE]
        if opening:
            self._storage.expect([self._directory / name.text for name in opening])
        self._storage.bring(self._frames(query, closed.keys() - set(opening)))

    def _walk(self, query: LayerQuery) -> Iterator[tuple[Visit, LayerQuery]]:
        """What is still to be seen, with a query that has the hits and may be asked for frames."""
        ahead = LayerQuery(query.count)
        ahead.foresee(query)
        for visit in self._visits(ahead):
            yield visit, ahead
            if visit.is_image:
                ahead.end_hits()

    def _frames(
        self, query: LayerQuery, closed: Collection[FileName]
    ) -> Iterator[tuple[File, int, int]]:
        """Of each request and layer the frame that is seen first; not beyond a bundle that stays
        `closed` for now."""
        for visit, ahead in self._walk(query):
            if visit.name in closed:
                return
            try:
                reader = visit.reader or self._open_bundle(visit.name)
                yield from reader.places(sorted(set(ahead.aim(reader.table))), self._cache)
            except (CorruptionError, OSError):
                continue
