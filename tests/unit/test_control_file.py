"""pg_control, crafted; tests/integration/test_base_backup.py reads real ones."""

import pytest

from formats.control_file import parse_control_file, with_checkpoint_at
from formats.errors import CorruptionError
from tests.fixtures.control_file import crafted


@pytest.mark.parametrize("version", [1300, 1700, 1800])
def test_fields(version: int) -> None:
    control = parse_control_file(crafted(version))
    assert control.system_identifier == 7_000_000_000_000_000_001
    assert control.state == "in production"
    assert (control.checkpoint_lsn, control.redo_lsn) == (0x1_0000_0028, 0x1_0000_0000)
    assert (control.timeline, control.wal_level) == (3, "replica")
    assert (control.block_bytes, control.relation_segment_blocks) == (8192, 131072)
    assert (control.wal_block_bytes, control.wal_segment_bytes) == (8192, 16 << 20)
    assert control.checksums


@pytest.mark.parametrize("version", [1300, 1700, 1800])
def test_another_checkpoint(version: int) -> None:
    """Its LSN and the copy of its record change, and nothing else."""
    before = crafted(version)
    record = (0x1_0000_0500).to_bytes(8, "little") + before[48:128]
    control = parse_control_file(with_checkpoint_at(before, 0x1_0000_0500, record))
    assert control.checkpoint_lsn == control.redo_lsn == 0x1_0000_0500
    fields = vars(parse_control_file(before)) | {
        "checkpoint_lsn": 0x1_0000_0500,
        "redo_lsn": 0x1_0000_0500,
    }
    assert vars(control) == fields


def test_every_flipped_byte_below_the_crc_is_refused() -> None:
    data = crafted()
    for at in range(296):
        damaged = bytearray(data)
        damaged[at] ^= 0x40
        with pytest.raises(CorruptionError):
            parse_control_file(bytes(damaged))


def test_what_is_refused() -> None:
    with pytest.raises(CorruptionError, match="expected 296 bytes, found 290 bytes"):
        parse_control_file(crafted()[:290])
    with pytest.raises(CorruptionError, match="expected at least 16 bytes"):
        parse_control_file(b"")
    swapped = bytearray(crafted())
    swapped[8:12] = (1800).to_bytes(4, "big")
    with pytest.raises(CorruptionError, match="found 1800 in big-endian byte order"):
        parse_control_file(bytes(swapped))
    with pytest.raises(CorruptionError, match="expected one of 1300, 1700, 1800, found 1201"):
        parse_control_file(crafted(1201))
    with pytest.raises(CorruptionError, match="wal_level .*expected 0 to 2, found 7"):
        parse_control_file(crafted(wal_level=7))
    with pytest.raises(CorruptionError, match="cluster state .*found 9"):
        parse_control_file(crafted(state=9))
