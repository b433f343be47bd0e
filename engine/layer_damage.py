"""Layers that are damaged, and so are not compacted: found by reading all that was to be merged."""

import logging
from collections.abc import Iterator, Sequence

from engine.bundle_reader import BundleReader
from engine.disk_room import will_pass
from engine.errors import UnreachableError
from engine.merge_plan import MergeInput
from engine.stripe_layers import Stripe
from formats.chunk import ChunkKey
from formats.errors import CorruptionError
from formats.file_name import FileName

Layer = tuple[FileName, int]  # a bundle, and a row of its layer directory
_log = logging.getLogger("pageserver.compactor")


class Damage:
    """What compaction has met since the start; it leaves it as it is, and the others go on."""

    def __init__(self) -> None:
        self.stripes: dict[Stripe, str] = {}  # and why
        self.layers: set[Layer] = set()

    def report(self, stripe: Stripe, error: Exception) -> None:
        if stripe not in self.stripes:
            self.stripes[stripe] = str(error)
            name = ChunkKey.unpack(stripe[0]).name
            _log.error("stripe %d of %s is damaged and not compacted: %s", stripe[1], name, error)

    def forget(self) -> None:
        """Files were replaced by sound ones: what is damaged still will be found again."""
        self.stripes.clear()
        self.layers.clear()

    def explains(self, error: Exception, inputs: Sequence[MergeInput]) -> bool:
        """Whether a merge failed because some of `inputs` are damaged, and that was not known: the
        next one leaves them out."""
        known = len(self.layers)
        return not will_pass(error) and not self.is_sound(inputs) and len(self.layers) > known

    def is_sound(self, inputs: Sequence[MergeInput]) -> bool:
        """Whether all of `inputs` can be read; what cannot be is noted. UnreachableError: nobody
        can tell."""
        damaged = list(_find(inputs))
        for layer, stripe, error in damaged:
            self.layers.add(layer)
            self.report(stripe, error)
        return not damaged


def _find(inputs: Sequence[MergeInput]) -> Iterator[tuple[Layer, Stripe, Exception]]:
    """The layers of `inputs` that have a frame which cannot be read, and why; of a bundle whose
    frame table cannot be, all."""
    for reader, rows in inputs:
        directory, frames = reader.directory, dict[int, Exception | None]()
        for row in rows:
            for number in range(directory.frame_start(row), directory.frame_end(row)):
                if number not in frames:
                    frames[number] = _problem(reader, number)
                if (problem := frames[number]) is not None:
                    stripe = directory.key(row), directory.stripe(row)
                    yield (reader.name, row), stripe, problem
                    break


def _problem(reader: BundleReader, number: int) -> Exception | None:
    try:
        reader.read_frame(number)
    except UnreachableError:
        raise
    except (CorruptionError, OSError) as error:
        return error
    return None
