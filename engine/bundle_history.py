"""What the HISTORY versions of a bundle say of relations: their sizes, cuts and ends."""

from collections.abc import Iterable, Iterator

from engine.bundle_reader import BundleReader
from engine.index import subject_of
from engine.index_batch import RelationChange
from formats import frame as frames
from formats import version
from formats.errors import CorruptionError


def changes_of_rows(reader: BundleReader, rows: Iterable[int]) -> list[RelationChange]:
    """Those of rows of the layer directory, each of a history, in order of (row, block, LSN)."""
    directory = reader.directory
    changes: list[RelationChange] = []
    raw, at = b"", -1
    for row in rows:
        key = directory.key(row)
        layer, subject = directory.number(row), subject_of(key)
        for number in range(directory.frame_start(row), directory.frame_end(row)):
            if number != at:
                raw, at = reader.read_frame(number), number
            changes.extend(_changes_of_layer(raw, layer, subject, f"{reader.path} frame {number}"))
    return changes


def _changes_of_layer(
    raw: bytes, layer: int, subject: bytes, where: str
) -> Iterator[RelationChange]:
    for slot in frames.slots_of_layer(raw, layer):
        payload = raw[frames.version_start(raw, slot) : frames.version_end(raw, slot)]
        if len(payload) != version.HISTORY_SIZE or payload[0] != version.HISTORY:
            raise CorruptionError("relation history", where, "a HISTORY version", payload.hex())
        n_blocks = int.from_bytes(payload[4:8], "little")
        is_cut = frames.version_block(raw, slot) == 1
        yield RelationChange(
            subject, frames.version_lsn(raw, slot), bool(payload[1]), n_blocks, is_cut
        )
