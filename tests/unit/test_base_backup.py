"""Taking a base backup in, from a scripted source: what is kept, what is refused."""

import io
import tarfile
from pathlib import Path

import pytest
from psycopg import pq

from formats import page, page_checksum
from formats.chunk import BLOCK_BYTES, SEGMENT_BLOCKS, ChunkKey, relation, slru
from formats.errors import CorruptionError
from server.backup_members import SmallFileMember, classify
from server.base_backup import BackupReport, BaseBackup, check_pages
from server.source_errors import SourceError
from tests.fixtures.control_file import crafted
from tests.fixtures.fake_ingest import FakeIngest
from tests.fixtures.fake_source import SYSTEM_IDENTIFIER, FakeResult, FakeSource


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("base/5/1259", relation(1663, 5, 1259, 0)),
        ("base/5/16384_fsm", relation(1663, 5, 16384, 1)),
        ("base/4294967295/4294967295_vm.12", relation(1663, 4294967295, 4294967295, 2, 12)),
        ("base/5/16384_init", relation(1663, 5, 16384, 3)),
        ("global/1262", relation(1664, 0, 1262, 0)),
        ("pg_xact/0000", slru(0, 0)),
        ("pg_xact/1000A", slru(0, 0x1000A)),
        ("pg_multixact/members/14078", slru(1, 0x14078)),
        ("pg_multixact/offsets/00FF", slru(2, 0xFF)),
        ("pg_commit_ts/0001", slru(3, 1)),
        ("PG_VERSION", SmallFileMember("PG_VERSION")),
        ("backup_label", SmallFileMember("backup_label")),
        ("tablespace_map", SmallFileMember("tablespace_map")),
        ("global/pg_control", SmallFileMember("global/pg_control")),
        ("global/pg_filenode.map", SmallFileMember("global/pg_filenode.map")),
        ("base/5/pg_filenode.map", SmallFileMember("base/5/pg_filenode.map")),
        ("base/5/PG_VERSION", SmallFileMember("base/5/PG_VERSION")),
        ("pg_twophase/000002F1", SmallFileMember("pg_twophase/000002F1")),
        (
            "pg_logical/replorigin_checkpoint",
            SmallFileMember("pg_logical/replorigin_checkpoint"),
        ),
        ("postgresql.conf", None),
        ("base/5/t3_16384", None),
        ("base/5/16384.0", None),
        ("base/5/0", None),
        ("base/pgsql_tmp/pgsql_tmp123.0", None),
        ("base/5/pg_internal.init", None),
        ("global/pg_internal.init", None),
        ("pg_subtrans/0000", None),
        ("pg_notify/0000", None),
        ("pg_stat/pgstat.stat", None),
        ("pg_replslot/x/state", None),
        ("pg_wal/000000010000000000000001", None),
        ("pg_xact/zzzz", None),
    ],
)
def test_members(name: str, key: ChunkKey | SmallFileMember | None) -> None:
    assert classify(name, None) == key
    assert classify(name, 16390) is None


def test_members_of_a_tablespace() -> None:
    prefix = "PG_18_202506291/5"
    assert classify(f"{prefix}/16384_vm.1", 16390) == relation(16390, 5, 16384, 2, 1)
    path = f"pg_tblspc/16390/{prefix}/PG_VERSION"
    assert classify(f"{prefix}/PG_VERSION", 16390) == SmallFileMember(path)
    assert classify(f"{prefix}/16384", None) is None
    assert classify(f"{prefix}/pgsql_tmp/pgsql_tmp1", 16390) is None


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def source_of(archives: dict[str, dict[str, bytes]], piece: int = 32768) -> FakeSource:
    messages: list[bytes] = []
    for name, files in archives.items():
        messages.append(b"n" + name.encode() + b"\0/somewhere\0")
        data = tar_of(files)
        messages += [b"d" + data[at : at + piece] for at in range(0, len(data), piece)]
        messages.append(b"p" + len(data).to_bytes(8, "big"))
    source = FakeSource(messages)
    source.results = [
        FakeResult(pq.ExecStatus.TUPLES_OK, [["1/28", "1"]]),
        FakeResult(pq.ExecStatus.TUPLES_OK, [["16390", "/somewhere", "8"], [None, None, "300"]]),
        FakeResult(pq.ExecStatus.COPY_OUT),
    ]
    source.ends_with = [
        FakeResult(pq.ExecStatus.TUPLES_OK, [["1/158", "1"]]),
        FakeResult(pq.ExecStatus.COMMAND_OK),
    ]
    return source


def take(source: FakeSource, store: FakeIngest) -> BackupReport:
    nothing = (lambda identity: None, lambda report: None)
    backup = BaseBackup(source, store, *nothing)  # type: ignore[arg-type]
    return backup.take(SYSTEM_IDENTIFIER)


CONTROL = {"global/pg_control": crafted()}


def test_pieces_share_memory_and_are_not_mixed_up(tmp_path: Path) -> None:
    """A store that kept a piece would find the next one in it."""
    store = FakeIngest(tmp_path)
    numbered = b"".join(number.to_bytes(4, "little") * 2048 for number in range(300))
    files = {"base/5/16384": numbered, "base/5/16385": numbered[::-1][: 3 * BLOCK_BYTES]}
    seen: list[memoryview] = []
    add_pages = store.add_pages

    def keep(key: ChunkKey, first_block: int, data: memoryview) -> None:
        seen.append(data)
        add_pages(key, first_block, data)

    store.add_pages = keep  # type: ignore[method-assign]
    take(source_of({"base.tar": {**files, **CONTROL}}, piece=10_000), store)
    assert store.chunks[relation(1663, 5, 16384, 0)] == numbered
    assert store.chunks[relation(1663, 5, 16385, 0)] == files["base/5/16385"]
    assert [len(data) // BLOCK_BYTES for data in seen] == [128, 128, 44, 3]
    assert all(bytes(data[:100]) == bytes(seen[-1][:100]) for data in seen)


def test_archives_and_ends(tmp_path: Path) -> None:
    store = FakeIngest(tmp_path)
    blocks = bytes(BLOCK_BYTES) * 200  # more than one piece
    space = {"PG_18_202506291/5/16400": blocks[:BLOCK_BYTES]}
    main = {
        "base/5/16384": blocks + b"half a page",
        "base/5/16385": b"",
        "pg_xact/0000": blocks[: 3 * BLOCK_BYTES],
        "postgresql.conf": b"x = 1",
        **CONTROL,
    }
    report = take(source_of({"16390.tar": space, "base.tar": main}), store)
    assert store.sizes == {
        relation(16390, 5, 16400, 0): 1,
        relation(1663, 5, 16384, 0): 200,
        relation(1663, 5, 16385, 0): 0,
        slru(0, 0): 3,
    }
    assert store.chunks[relation(1663, 5, 16384, 0)] == blocks
    assert store.files == CONTROL
    assert (report.start_lsn, report.end_lsn) == (0x1_0000_0028, 0x1_0000_0158)
    assert (report.files, report.ignored_files) == (5, 1)
    assert report.bytes_total == 308 * 1024
    assert store.identity is not None
    assert store.identity.wal_segment_size == 16 << 20


def test_a_backup_without_its_end_is_none(tmp_path: Path) -> None:
    store = FakeIngest(tmp_path)
    with pytest.raises(SourceError, match="has no pg_control"):
        take(source_of({"base.tar": {"base/5/16384": b""}}), store)
    source = source_of({"base.tar": CONTROL})
    source.ends_with = []
    with pytest.raises(SourceError, match="has no end"):
        take(source, store)
    source = source_of({"base.tar": CONTROL})
    source.messages = [
        message
        for message in source.messages
        if not bytes(message or b"").startswith(b"p")  # type: ignore[arg-type]
    ][:-1]
    with pytest.raises(CorruptionError, match="tar archive at base.tar"):
        take(source, store)
    assert store.end_lsn == 0


def test_an_error_of_the_source_on_the_way(tmp_path: Path) -> None:
    source = source_of({"base.tar": CONTROL})
    source.ends_with = SourceError("the standby was promoted during online backup")
    store = FakeIngest(tmp_path)
    with pytest.raises(SourceError, match="was promoted"):
        take(source, store)
    assert store.end_lsn == 0


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("block_size", "4096", r"blocks \(BLCKSZ\) of 4096 bytes, expected 8192"),
        ("wal_block_size", "16384", r"WAL blocks \(XLOG_BLCKSZ\) of 16384 bytes"),
        ("segment_size", "2GB", r"relation segments \(RELSEG_SIZE\) of 2147483648 bytes"),
        ("wal_level", "minimal", "wal_level=minimal.*Set wal_level = replica"),
    ],
)
def test_refused_settings(tmp_path: Path, setting: str, value: str, message: str) -> None:
    source = source_of({"base.tar": CONTROL})
    source.shown[setting] = value
    store = FakeIngest(tmp_path)
    with pytest.raises(SourceError, match=message) as refused:
        take(source, store)
    assert refused.value.permanent
    assert store.begun_count == 0
    assert source.commands == []


@pytest.mark.parametrize("version", [130023, 190000])
def test_refused_versions(tmp_path: Path, version: int) -> None:
    source = source_of({"base.tar": CONTROL})
    source.version = version
    with pytest.raises(SourceError, match=f"is PostgreSQL {version // 10000}.*keeps PostgreSQL 14"):
        take(source, FakeIngest(tmp_path))


def test_refused_control_files(tmp_path: Path) -> None:
    """A standby's settings are its own; what its primary writes stands in pg_control alone."""
    minimal = {"global/pg_control": crafted(wal_level=0)}
    with pytest.raises(SourceError, match="wal_level=minimal"):
        take(source_of({"base.tar": minimal}), FakeIngest(tmp_path / "a"))
    damaged = bytearray(crafted())
    damaged[60] ^= 1
    with pytest.raises(CorruptionError, match="control file CRC"):
        take(source_of({"base.tar": {"global/pg_control": bytes(damaged)}}), FakeIngest(tmp_path))
    swapped = bytearray(crafted())
    swapped[8:12] = swapped[8:12][::-1]
    with pytest.raises(SourceError, match="big-endian") as refused:
        take(source_of({"base.tar": {"global/pg_control": bytes(swapped)}}), FakeIngest(tmp_path))
    assert refused.value.permanent
    source = source_of({"base.tar": CONTROL})
    source.identity = source.identity.__class__(77, 1, 0)
    with pytest.raises(SourceError, match="its system identifier is 77"):
        take(source, FakeIngest(tmp_path))


def test_checksums_count_blocks_of_the_relation_not_of_the_segment() -> None:
    pages = bytearray(2 * BLOCK_BYTES)
    for index in range(2):
        one = memoryview(pages)[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]
        page.init(one, 0)
        one[8:10] = page_checksum.checksum(one, SEGMENT_BLOCKS + 5 + index).to_bytes(2, "little")
    report = BackupReport()
    check_pages(relation(1663, 5, 16384, 0, 1), 5, pages, report)
    assert report.torn_pages == 0
    check_pages(relation(1663, 5, 16384, 0, 0), 5, pages, report)
    assert (report.torn_pages, report.zeroed_pages) == (2, 0)
    assert any(pages)
    check_pages(relation(1663, 5, 16384, 2, 0), 5, pages, report)
    assert report.zeroed_pages == 2
    assert not any(pages)


def test_new_pages_need_no_checksum_but_must_be_zeros() -> None:
    pages = bytearray(2 * BLOCK_BYTES)
    pages[BLOCK_BYTES + 8000] = 1
    report = BackupReport()
    check_pages(relation(1663, 5, 16384, 0), 0, pages, report)
    assert report.torn_pages == 1
