"""Pages that need 27 records over an image: made, and found in the WAL."""

from collections.abc import Iterator
from contextlib import contextmanager

from engine.record_batch import RecordBatch
from engine.wal_reader import WalReader
from formats import lsn, wal_page
from tools.bench.attached import attached, catch_up, insert_lsn, primary_of, relation_of
from tools.bench.bench import Bench
from tools.page_server import PageServer
from tools.postgres import Server
from tools.postgres_binaries import WHEEL_MAJOR

RECORDS = 27
PAGES = 2000
UPDATES = 32
SCALE = 2
FILL_PERCENT = 80
ROWS_PER_PAGE = 49  # with that fill
HAS_IMAGE = 0x10
FORK = 0x0F  # 0 is the main fork
BATCH_RECORDS = 4096
SETTINGS = {"autovacuum": "off"}
NEVER_FLUSH = ("--set", "flush_seconds_max=3600")


@contextmanager
def replay_pages(
    bench: Bench,
) -> Iterator[tuple[PageServer, tuple[int, int, int], dict[int, int]]]:
    """A page server, a relation, and for each of its blocks the LSN of the 27th record.

    Every round changes one row of each page. The first change after the base backup's checkpoint is
    an image; then come the records, among them prunes, as the updates fill the pages.
    """
    with (
        primary_of(bench, SCALE, SETTINGS, fill_percent=FILL_PERCENT) as primary,
        attached(bench, primary, *NEVER_FLUSH) as server,
    ):
        relation = relation_of(primary, "pgbench_accounts")
        start = insert_lsn(primary)
        for number in range(UPDATES):
            primary.sql(
                "update pgbench_accounts set abalance = abalance + 1 "
                f"where aid <= {PAGES * ROWS_PER_PAGE} and aid % {ROWS_PER_PAGE} = {number}"
            )
        catch_up(primary, server)
        lsns = nth_record_lsns(primary, start, relation)
        if len(lsns) < PAGES // 2:
            raise ValueError(f"only {len(lsns)} pages have more than {RECORDS} records")
        yield server, relation, lsns


def nth_record_lsns(primary: Server, start: int, relation: tuple[int, int, int]) -> dict[int, int]:
    """Block -> LSN of its 27th record after an image, where it has a newer one besides."""
    counts: dict[int, int] = {}
    found: dict[int, int] = {}
    passed: dict[int, int] = {}
    for block, end, is_image in references(primary, start, relation):
        if block in found:
            passed[block] = found[block]
        elif is_image:
            counts[block] = 0
        elif block in counts:
            counts[block] += 1
            if counts[block] == RECORDS:
                found[block] = end
    return passed


def references(
    primary: Server, start: int, relation: tuple[int, int, int]
) -> Iterator[tuple[int, int, bool]]:
    """(block, end of the record, whether it is an image) of all references to a relation."""
    files = sorted(
        path for path in (primary.data_dir / "pg_wal").iterdir() if wal_page.is_file_name(path.name)
    )
    size = files[0].stat().st_size
    first = lsn.segment_number(start, size)
    reader = WalReader(lsn.segment_start(first, size), size, version=WHEEL_MAJOR, zeros_end=True)
    batch = RecordBatch(BATCH_RECORDS, 4 * BATCH_RECORDS)
    for path in files:
        if wal_page.parse_file_name(path.name, size)[1] < first:
            continue
        reader.feed(reader.lsn, path.read_bytes())
        while count := reader.decode(batch):
            yield from _references(batch, count, start, relation)
        if reader.at_end:
            return


def _references(
    batch: RecordBatch, count: int, start: int, relation: tuple[int, int, int]
) -> Iterator[tuple[int, int, bool]]:
    for r in range(count):
        if batch.lsn_start[r] < start:
            continue
        for i in range(batch.first_reference[r], batch.first_reference[r + 1]):
            named = batch.ref_spc[i], batch.ref_db[i], batch.ref_rel[i]
            if named == relation and batch.ref_flags[i] & FORK == 0:
                is_image = bool(batch.ref_flags[i] & HAS_IMAGE)
                yield batch.ref_block[i], batch.lsn_end[r], is_image
