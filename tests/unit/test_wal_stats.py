"""tools.wal_stats over made-up segment files; on real WAL: tests/integration/test_wal_decode.py."""

from pathlib import Path

import pytest

from formats import lsn, wal_page
from tests.fixtures.wal_builder import MIB, PAGE, Image, Record, Reference, WalBuilder
from tools import wal_stats


def write(wal: WalBuilder, directory: Path) -> None:
    """The segment files of this WAL, the last one filled up with zeros as real ones are."""
    wal.data += bytes(-len(wal.data) % MIB)
    for pos in range(0, len(wal.data), MIB):
        name = wal_page.file_name(1, (wal.start + pos) // MIB, MIB)
        (directory / name).write_bytes(wal.data[pos : pos + MIB])


@pytest.fixture
def wal(tmp_path: Path) -> WalBuilder:
    wal = WalBuilder(version=15)
    image = Image(bytes(PAGE - 100), 50, 100, 3)
    for n in range(400):
        wal.add(Record(rmgr=10, info=0x80, main=bytes(3), references=[Reference(0, (1, 2, 3), n)]))
        wal.add(Record(rmgr=0, info=0xB0, references=[Reference(0, (1, 2, 3), n, image=image)]))
    wal.add(Record(rmgr=1, info=0xA0))
    write(wal, tmp_path)
    return wal


def test_counts(wal: WalBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "archive_status").mkdir()
    (tmp_path / "00000002.history").touch()
    assert len(list(tmp_path.iterdir())) > 3
    assert wal_stats.main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    end = wal.placed[-1][1]
    assert lines[0] == f"WAL of PostgreSQL 15 between 0/100028 and {lsn.show(end)}"
    image_bytes = PAGE - 100
    assert [line.split() for line in lines[2:]] == [
        ["XLOG/FPI", "400", str(400 * 49), str(400 * image_bytes), str(400 * (49 + image_bytes))],
        ["Transaction/ABORT", "1", "24", "0", "24"],
        ["Heap/INSERT+INIT", "400", str(400 * 49), "0", str(400 * 49)],
        ["Total", "801", str(800 * 49 + 24), str(400 * image_bytes),
         str(800 * 49 + 24 + 400 * image_bytes)],
    ]  # fmt: skip


def test_start_and_end(wal: WalBuilder, tmp_path: Path) -> None:
    start, end = wal.placed[300][0], wal.placed[310][0]
    assert start > 2 * MIB
    stats = wal_stats.count([tmp_path], start, end)
    assert sum(kind.count for kind in stats.kinds.values()) == 10
    assert (stats.start_lsn, stats.end_lsn) == (start, end)


def test_segments_by_name_and_newest_timeline(wal: WalBuilder, tmp_path: Path) -> None:
    newer = tmp_path / wal_page.file_name(2, 2, MIB)
    newer.touch()
    names = [file.name for file in wal_stats.segments([tmp_path])]
    assert names[:3] == [wal_page.file_name(t, n, MIB) for t, n in ((1, 1), (2, 2), (1, 3))]
    second = tmp_path / wal_page.file_name(1, 3, MIB)
    stats = wal_stats.count([second])
    assert 3 * MIB + 40 < stats.end_lsn <= 4 * MIB + PAGE


def test_damage_and_nothing(wal: WalBuilder, tmp_path: Path, capsys) -> None:
    path = tmp_path / wal_page.file_name(1, 2, MIB)
    data = bytearray(path.read_bytes())
    data[PAGE] ^= 1
    path.write_bytes(data)
    assert wal_stats.main([str(tmp_path)]) == 1
    assert "magic number of the WAL page at LSN 0/202000" in capsys.readouterr().err
    (tmp_path / wal_page.file_name(1, 1, MIB)).write_bytes(b"\xff" * MIB)
    assert wal_stats.main([str(tmp_path)]) == 1
    assert "segment size" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert wal_stats.main([str(empty)]) == 2
    assert "no WAL segments" in capsys.readouterr().err
