"""Where oracle B stops its standby: record ends, with a checkpoint between any two."""

from pathlib import Path
from random import Random

import pytest

from formats import wal_page
from tests.fixtures.wal_builder import Record, WalBuilder
from tools.wal_positions import SEGMENT_BYTES, TooFewCheckpoints, WalPositions, read_positions

ORDINARY = Record(main=bytes(200))
CHECKPOINT, PARAMETERS = Record(0, 0x10, main=bytes(88)), Record(0, 0x60, main=bytes(26))


def positions_of(directory: Path, records: list[Record]) -> tuple[WalBuilder, WalPositions]:
    wal = WalBuilder(SEGMENT_BYTES, SEGMENT_BYTES)
    for record in records:
        wal.add(record)
    name = wal_page.file_name(1, 1, SEGMENT_BYTES)
    (directory / name).write_bytes(bytes(wal.data).ljust(SEGMENT_BYTES, b"\0"))
    return wal, read_positions(directory, 1, SEGMENT_BYTES, 18)


def test_ends_and_checkpoints_are_found(tmp_path):
    wal, found = positions_of(tmp_path, [ORDINARY, CHECKPOINT, PARAMETERS, *[ORDINARY] * 90])
    ends = [end for _, end, _ in wal.placed]
    assert list(found.ends) == ends
    assert list(found.checkpoint_ends) == [ends[1]]
    assert found.before_parameter_changes(0) == [ends[1]]
    assert found.before_parameter_changes(ends[2]) == []


def test_a_checkpoint_is_before_every_target(tmp_path):
    """None is drawn between a standby's start and the first checkpoint behind it."""
    _, found = positions_of(tmp_path, ([ORDINARY] * 20 + [CHECKPOINT]) * 12 + [ORDINARY] * 20)
    checkpoints = found.checkpoint_ends
    bases = [checkpoints[1], checkpoints[4] + 1000]
    targets = found.targets(Random(1), 80, bases)
    assert len(targets) == 80 and targets == sorted(targets)
    assert not [t for t in targets if t < checkpoints[2] or bases[1] < t < checkpoints[5]]
    assert [t for t in targets if checkpoints[3] < t < bases[1]]
    assert targets[-1] > checkpoints[11]


def test_without_checkpoints_there_are_no_targets(tmp_path):
    _, found = positions_of(tmp_path, [ORDINARY] * 9 + [CHECKPOINT] + [ORDINARY] * 9)
    with pytest.raises(TooFewCheckpoints):
        found.targets(Random(1), 1, [found.checkpoint_ends[0]])
