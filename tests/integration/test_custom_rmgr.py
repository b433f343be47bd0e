"""Invariant 10 from end to end: a record of an extension's resource manager changes pages.

No package of Debian or PyPI registers one that does, so the record is crafted. Everything before it
is a real server's: its base backup, and its WAL up to a clean stop. Then that WAL is played on by a
source that puts records behind it, which go through receiver, journal, ingest and page service.
"""

import pytest

from formats import page, rmgr
from formats.control_file import parse_control_file
from formats.lsn import segment_number
from formats.lsn import show as show_lsn
from server.client import PageClient, PageServerError
from tests.fixtures.wal_builder import APPLY, PAGE, Image, Record, Reference, WalBuilder
from tests.fixtures.wal_player import WalPlayer
from tools.page_server import PageServer
from tools.postgres import Server

MAJOR = 18
CUSTOM = rmgr.CUSTOM_MIN + 5
Relation = tuple[int, int, int]


def wal_of(primary: Server, start: int, end: int) -> bytes:
    """The bytes of WAL from `start`, where a segment begins, up to `end`."""
    data = b"".join(
        path.read_bytes()
        for path in sorted((primary.data_dir / "pg_wal").glob("0" * 7 + "1" + "[0-9A-F]" * 16))
        if int(path.name[8:16], 16) << 32 | int(path.name[16:], 16) << 24 >= start
    )
    return data[: end - start]


def changes(relation: Relation, *blocks: int) -> Record:
    """A record of the extension that changes some blocks and says how in its own way."""
    references = [
        Reference(number, relation, block, data=b"its own data")
        for number, block in enumerate(blocks)
    ]
    return Record(CUSTOM, 0x30, 0, b"its own main data", references)


def full_page(relation: Relation, block: int) -> Record:
    content = memoryview(bytearray(PAGE))
    page.init(content, 0)
    image = Image(bytes(content), info=APPLY)
    return Record(0, 0xB0, references=[Reference(0, relation, block, image=image)])


def initialises(relation: Relation, block: int) -> Record:
    """HEAP INSERT+INIT of one tuple."""
    data = b"\1\0\0\x08\x18" + bytes(5)
    return Record(10, 0x80, 700, b"\1\0\0",
                  [Reference(0, relation, block, data=data, will_init=True)])  # fmt: skip


class Reading:
    """Pages of one relation, as a client gets them."""

    def __init__(self, client: PageClient, relation: Relation) -> None:
        self.client = client
        self.relation = relation

    def page(self, block: int, lsn: int) -> bytes:
        found: bytes = self.client.get_page(*self.relation, 0, block, lsn)
        return found

    def error(self, block: int, lsn: int) -> str:
        with pytest.raises(PageServerError) as caught:
            self.page(block, lsn)
        return str(caught.value)


def test_pages_that_an_extension_changed(postgres, page_server):
    primary = postgres(MAJOR, {"wal_keep_size": "1GB"})
    primary.psql("CREATE TABLE t(a int); INSERT INTO t SELECT generate_series(1, 2000)")
    node, database = primary.sql(
        "SELECT pg_relation_filenode('t'), oid FROM pg_database WHERE datname = 'postgres'"
    )[0]
    relation = (1663, int(database), int(node))
    server = page_server(primary)
    primary.psql("UPDATE t SET a = a + 1 WHERE a < 1000")
    primary.stop()
    end = primary.shutdown_checkpoint_end()
    server.wait_until_ready(end)
    server.kill()

    control = parse_control_file((primary.data_dir / "global/pg_control").read_bytes())
    start = segment_number(end, 1 << 24) << 24
    wal = WalBuilder(end, 1 << 24, MAJOR, previous=control.checkpoint_lsn)
    changed = wal.add(changes(relation, 1, 3))
    again = wal.add(changes(relation, 1))
    last = wal.add(Record(21, 0, main=b"a logical message"))
    with WalPlayer(
        control.system_identifier, start, wal_of(primary, start, end) + bytes(wal.data), MAJOR
    ) as source:
        served = PageServer(server.data_dir, source.conninfo)
        try:
            check(served, source, wal, relation, (end, changed, again, last))
        finally:
            served.kill()


def check(
    server: PageServer,
    source: WalPlayer,
    wal: WalBuilder,
    relation: Relation,
    lsns: tuple[int, int, int, int],
) -> None:
    """`lsns`: before the records, at the end of both, behind them."""
    before, changed, again, last = lsns
    name = rmgr.name(CUSTOM)
    server.start()
    server.wait_until_ready(last)
    with server.client() as client:
        reading = Reading(client, relation)
        blocks = client.nblocks(*relation, 0, last)
        old = [reading.page(block, before) for block in range(blocks)]
    played = len(wal.data)
    image_end = wal.add(full_page(relation, 1))
    init_end = wal.add(initialises(relation, 3))
    for stage in ("in the memtable", "in layers, restarted", "replaced", "replaced and restarted"):
        with server.client() as client:
            reading = Reading(client, relation)
            assert [reading.page(block, before) for block in range(blocks)] == old, stage
            for block, lsn, record_end in (
                (1, changed, changed), (3, changed, changed), (1, last, again), (3, last, changed),
            ):  # fmt: skip
                said = reading.error(block, lsn)
                for part in (name, show_lsn(record_end), f"block {block}", "until"):
                    assert part in said, (stage, said)
            untouched = [block for block in range(blocks) if block not in (1, 3)]
            assert [reading.page(b, last) for b in untouched] == [old[b] for b in untouched]
            if "replaced" in stage:
                assert page.max_offset(memoryview(reading.page(1, init_end))) == 0
                assert page.max_offset(memoryview(reading.page(3, init_end))) == 1
                assert name in reading.error(3, image_end)
        if stage == "in layers, restarted":
            source.append(bytes(wal.data[played:]))
        elif stage != "replaced and restarted":
            assert server.stop() == 0
            server.start()
        server.wait_until_ready(last if stage == "in the memtable" else init_end)
