"""Records that create, truncate, drop or copy files, and what they leave to read."""

import struct

import pytest

from engine import index_rebuild
from formats.control_file import parse_control_file
from formats.errors import CorruptionError
from tests.fixtures.small_store import (
    REL,
    SmallStore,
    control_file,
    create,
    image,
)
from tests.fixtures.wal_builder import Record, Reference

XACT, MEMBERS, OFFSETS = range(3)
MAP_BLOCKS = 32672


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: None)


def parameter_change(wal_level: int = 1, wal_log_hints: bool = False) -> Record:
    main = struct.pack("<6i2?", 200, 8, 10, 0, 64, wal_level, wal_log_hints, False)
    return Record(0, 0x60, main=main)


def visible(heap_block: int) -> Record:
    """HEAP2 VISIBLE: map page and heap page, no images."""
    main = struct.pack("<IB", 700, 1)
    references = [
        Reference(0, REL, heap_block // MAP_BLOCKS, 2),
        Reference(1, REL, heap_block, 0),
    ]
    return Record(9, 0x40, 700, main, references)


@pytest.mark.parametrize("major", [15, 18])
def test_wal_log_hints_is_followed_by_lsn_and_through_a_start(tmp_path, major):
    """It decides whether setting a page all-visible moves its LSN."""
    control = control_file(major, checksums=False)
    small = SmallStore(tmp_path, major=major, control=control)
    small.add(create(), create(fork=2), image(1, 11))
    written = small.put(image(0, 10))
    off = small.put(visible(0))
    changed = small.put(parameter_change(wal_log_hints=True))
    assert lsn_of(small.page(0, off)) == written
    for _ in range(2):
        on = small.put(visible(1))
        assert lsn_of(small.page(1, on)) == on
        assert lsn_of(small.page(0, on)) == written
        for lsn, hints in ((off, False), (changed, True)):
            now = parse_control_file(small.store.file("global/pg_control", lsn))
            assert now.wal_log_hints is hints
        small.flush()
        small.reopen()
        small.put(image(1, 12))


def lsn_of(page: bytes) -> int:
    high, low = struct.unpack_from("<II", page)
    return high << 32 | low


def test_wal_level_minimal_is_refused(tmp_path):
    small = SmallStore(tmp_path)
    small.add(parameter_change(wal_level=0))
    with pytest.raises(CorruptionError, match="take a new base backup"):
        small.ingest()
