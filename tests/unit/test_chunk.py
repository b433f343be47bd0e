"""Chunk keys: bytes that sort, names that people read, both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats import chunk
from formats.chunk import ChunkKey, ChunkKind, Fork, Slru, SmallFile

oid = st.integers(0, 0xFFFFFFFF)
byte = st.integers(0, 255)
keys = st.builds(ChunkKey, byte, oid, oid, oid, byte, oid)

NAMES = {
    "rel:1663/5/1259/main/0": chunk.relation(1663, 5, 1259, Fork.MAIN),
    "rel:1664/0/1262/vm/3": chunk.relation(1664, 0, 1262, Fork.VM, 3),
    "slru:xact/0000": chunk.slru(Slru.XACT, 0),
    "slru:multixact_members/14078": chunk.slru(Slru.MULTIXACT_MEMBERS, 0x14078),
    "file:pg_control": chunk.small_file(SmallFile.PG_CONTROL),
    "file:1663/5/PG_VERSION": chunk.small_file(SmallFile.PG_VERSION, 1663, 5),
    "file:pg_twophase/741": chunk.small_file(SmallFile.PG_TWOPHASE, seg=741),
    "history:rel:1663/5/1259/init": chunk.relation(1663, 5, 1259, Fork.INIT).history(),
    "times:commits": chunk.COMMIT_TIMES,
    "history:slru:commit_ts/000A": chunk.slru(Slru.COMMIT_TS, 10).history(),
}


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    assert NAMES[name].name == name
    assert ChunkKey.parse(name) == NAMES[name]


def test_bytes() -> None:
    key = ChunkKey(ChunkKind.REL, 1663, 5, 1259, Fork.VM, 7)
    assert key.pack().hex(" ") == "01 00 00 06 7f 00 00 00 05 00 00 04 eb 02 00 00 00 07"
    assert len(key.pack()) == chunk.KEY_BYTES


@given(keys, keys)
def test_bytes_sort_like_tuples(a: ChunkKey, b: ChunkKey) -> None:
    assert ChunkKey.unpack(a.pack()) == a
    assert (a < b) == (a.pack() < b.pack())


@given(keys)
def test_every_key_has_a_name_that_is_its_own(key: ChunkKey) -> None:
    assert ChunkKey.parse(key.name) == key


@given(st.builds(ChunkKey, st.sampled_from(ChunkKind), oid, oid, oid, byte, oid))
def test_history_belongs_to_the_relation_not_to_its_segment(key: ChunkKey) -> None:
    history = key.history()
    assert history.is_history
    assert history.history() == history
    assert history.subject() == key.subject()
    if key.kind == ChunkKind.REL:
        assert history.seg == 0


@pytest.mark.parametrize(
    "name",
    ["", "rel:1/2/3", "rel:1/2/3/side", "rel:1/2/4294967296/main", "slru:xact/00", "slru:x/0000",
     "file:nothing", "history:history:rel:1/2/3/main", "unknown:00", "history:", "rel:1/2/3/main/"],
)  # fmt: skip
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="chunk"):
        ChunkKey.parse(name)
