"""Reading a data directory: which file is which fork, over segments and tablespaces."""

from pathlib import Path

import pytest

from formats.chunk import BLOCK_BYTES, SEGMENT_BLOCKS, Fork, Slru
from tools.data_directory import ForkFile, RelationFork, fork_path, scan, slru_segments

FILES = (
    "global/1262",
    "global/1262_fsm",
    "global/pg_control",
    "global/pg_filenode.map",
    "global/pg_internal.init",
    "base/5/PG_VERSION",
    "base/5/16384",
    "base/5/16384_vm",
    "base/5/16390_init",
    "base/5/t3_16400",
    "base/5/t3_16400_fsm",
    "base/5/16384.bad",
    "pg_tblspc/20000/PG_18_202506291/5/16500",
    "pg_xact/0000",
    "pg_xact/000A",
    "pg_multixact/members/0000",
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    for name in (*FILES, "base/pgsql_tmp/x", "pg_multixact/offsets/0000", "pg_commit_ts/0000"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_scan(data_dir: Path) -> None:
    contents = scan(data_dir)
    assert set(contents.forks) == {
        RelationFork(1664, 0, 1262, Fork.MAIN),
        RelationFork(1664, 0, 1262, Fork.FSM),
        RelationFork(1663, 5, 16384, Fork.MAIN),
        RelationFork(1663, 5, 16384, Fork.VM),
        RelationFork(1663, 5, 16390, Fork.INIT),
        RelationFork(20000, 5, 16500, Fork.MAIN),
    }
    assert set(contents.databases) == {(1664, 0), (1663, 5), (20000, 5)}
    assert {path.name for path in contents.temporary} == {"t3_16400", "t3_16400_fsm"}
    assert [str(path) for path in contents.unknown] == ["base/5/16384.bad"]


def test_a_segment_between_is_missing(data_dir: Path) -> None:
    (data_dir / "base/5/16384.2").touch()
    assert "base/5/16384.2" in [str(path) for path in scan(data_dir).unknown]


def test_segments_are_one_fork(data_dir: Path) -> None:
    first, second = data_dir / "base/5/16384", data_dir / "base/5/16384.1"
    with open(first, "r+b") as file:
        file.truncate(SEGMENT_BLOCKS * BLOCK_BYTES)
    second.write_bytes(b"\x01" * BLOCK_BYTES + b"\x02" * BLOCK_BYTES)
    fork = RelationFork(1663, 5, 16384, Fork.MAIN)
    relation = ForkFile(data_dir, scan(data_dir).forks[fork])
    assert relation.n_blocks == SEGMENT_BLOCKS + 2
    assert relation.is_whole
    assert relation.read(SEGMENT_BLOCKS - 1, 1) == bytes(BLOCK_BYTES)
    assert relation.read(SEGMENT_BLOCKS + 1, 1) == b"\x02" * BLOCK_BYTES
    with open(first, "r+b") as file:
        file.truncate(BLOCK_BYTES)
    assert not ForkFile(data_dir, scan(data_dir).forks[fork]).is_whole


def test_slru_segments(data_dir: Path) -> None:
    assert slru_segments(data_dir, Slru.XACT) == {
        0: Path("pg_xact/0000"),
        10: Path("pg_xact/000A"),
    }


@pytest.mark.parametrize(
    ("fork", "path"),
    [
        (RelationFork(1664, 0, 1262, Fork.FSM), "global/1262_fsm"),
        (RelationFork(1663, 5, 16384, Fork.MAIN), "base/5/16384"),
        (RelationFork(20000, 5, 16500, Fork.INIT), "pg_tblspc/20000/*/5/16500_init"),
    ],
)
def test_fork_path(fork: RelationFork, path: str) -> None:
    assert fork_path(fork) == path
