"""`--chunks`: what a server holds, and shares that must never change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats import chunk, chunk_filter
from formats.chunk import ChunkKey, Fork, Slru, SmallFile

TABLE = chunk.relation(1663, 5, 16384, Fork.MAIN, 2)
CLOG = chunk.slru(Slru.XACT, 0x1A)
SHARES = [328458, 304258, 588978, 383203, 0]

u32 = st.integers(0, (1 << 32) - 1)


def held(spec: str, key: ChunkKey) -> bool:
    return chunk_filter.parse(spec).matches(*key)


@pytest.mark.parametrize(
    "spec",
    [
        "all",
        "rel:1663/5/16384",
        "rel:1663/5/16384/main",
        "rel:1663/5/16384/main/2",
        "rel:*/*/*",
        "rel:*/5/*/main/*",
        "slru:xact,rel:1663/5/16384",
        "hash:0/1",
        TABLE.name,
    ],
)
def test_a_relation_that_is_held(spec: str) -> None:
    assert held(spec, TABLE)


@pytest.mark.parametrize(
    "spec",
    [
        "rel:1664/5/16384",
        "rel:1663/4/16384",
        "rel:1663/5/16385",
        "rel:1663/5/16384/vm",
        "rel:1663/5/16384/main/1",
        "slru:xact",
        "slru:*/*",
    ],
)
def test_a_relation_that_is_not(spec: str) -> None:
    assert not held(spec, TABLE)


def test_slru_segments() -> None:
    for spec in ("all", "slru:xact", "slru:xact/001A", "slru:*", "slru:*/001A", CLOG.name):
        assert held(spec, CLOG)
    for spec in ("slru:xact/0026", "slru:commit_ts", "rel:*/*/*"):
        assert not held(spec, CLOG)


def test_histories_and_small_files_are_held_everywhere() -> None:
    control = chunk.small_file(SmallFile.PG_CONTROL)
    for key in (TABLE.history(), CLOG.history(), control, control.history()):
        assert held("rel:1/1/1", key)
        assert held("hash:0/1000000", key)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "everything",
        "all,",
        "rel:1/2",
        "rel:1/2/x",
        "rel:1/2/3/middle",
        "rel:4294967296/2/3",
        "rel:1/2/3/main/-1",
        "slru:clog",
        "slru:xact/1A",
        "slru:xact/001a",
        "hash:2/2",
        "hash:0/0",
        "hash:1",
        "hash:-1/2",
        " all",
    ],
)
def test_specs_that_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="expected|below|32 bits|is none of"):
        chunk_filter.parse(spec)


@given(u32, u32, u32, st.integers(0, 3), u32, st.integers(1, 9))
def test_shares_are_disjoint_and_complete(
    spc: int, db: int, rel: int, fork: int, seg: int, shares: int
) -> None:
    filters = [chunk_filter.parse(f"hash:{i}/{shares}") for i in range(shares)]
    for key in (chunk.relation(spc, db, rel, fork, seg), chunk.slru(fork, seg)):
        assert sum(one.matches(*key) for one in filters) == 1
    moved = chunk.relation(spc ^ 1, db ^ 1, rel, fork, seg)
    assert [f.matches(*moved) for f in filters] == [
        f.matches(*chunk.relation(spc, db, rel, fork, seg)) for f in filters
    ]


def test_shares_are_what_they_always_were() -> None:
    """Servers that disagree about these lose data: the numbers were computed once, for ever."""
    asked = [(16384, 0, 0), (16384, 0, 1), (16384, 2, 0), (4294967295, 3, 4294967295), (0, 0, 0)]
    found = [chunk_filter.share(rel, fork, seg, 1_000_003) for rel, fork, seg in asked]
    assert found == SHARES


def test_shares_are_even() -> None:
    counts = [0] * 3
    for rel in range(16384, 17384):
        for seg in range(3):
            counts[chunk_filter.share(rel, 0, seg, 3)] += 1
    assert min(counts) > 900
