"""Which of the layers that were to be merged are damaged: found by reading all of them."""

from collections.abc import Iterator, Sequence

from engine.bundle_reader import BundleReader
from engine.merge_plan import MergeInput
from engine.stripe_layers import Stripe
from formats.errors import CorruptionError
from formats.file_name import FileName

Layer = tuple[FileName, int]  # a bundle, and a row of its layer directory


def find_damage(inputs: Sequence[MergeInput]) -> Iterator[tuple[Layer, Stripe, Exception]]:
    """The layers of `inputs` that have a frame which cannot be read, and why."""
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
    except (CorruptionError, OSError) as error:
        return error
    return None
