"""Layers that are only in a bucket, on a real S3 server."""

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.block_cache import BLOCK_BYTES
from engine.cluster_identity import Wanted
from engine.lazy_storage import LazyStorage
from engine.remote_blocks import QUIET_SECONDS, RemoteObject
from engine.storage import Storage
from formats.lsn import parse
from server.backup.bucket_files import PARALLEL_REQUESTS, BucketFiles
from server.backup.restore import restore
from server.backup.s3_store import S3Store
from server.client import PageClient
from server.config import Settings
from server.exit_code import ExitCode
from server.lazy_directory import open_directory
from tests.fixtures.lazy_store import AwayStore, away, forget_frames, pages
from tests.fixtures.page_digest import digest
from tests.fixtures.page_servers import PageServerFactory
from tests.fixtures.postgres_servers import PostgresFactory
from tests.fixtures.s3_server import Bucket
from tests.fixtures.serving import Serving
from tests.fixtures.small_store import SMALL_POLICY, image
from tests.integration.test_page_server import assert_equal
from tools.excuses import Rules
from tools.page_server import PageServer

SECONDS_MAX = 30.0


@pytest.fixture
def store(tmp_path: Path, s3_bucket: Bucket) -> Iterator[AwayStore]:
    """A store whose bundles are in the bucket, with a cache of one block."""
    found = away(tmp_path)
    found.small.let_go()
    bucket = S3Store(s3_bucket.url, s3_bucket.endpoint, parallelism=16)
    for name, data in found.files.objects.items():
        bucket.put_stream(name, iter([data]), len(data))
    found.files.objects.clear()
    found.storage = LazyStorage(found.small.directory, BucketFiles(bucket), BLOCK_BYTES)
    found.small.open(found.storage)
    found.small.ingest()
    yield found
    found.small.let_go()


def test_every_page_while_the_server_comes_and_goes(store: AwayStore, s3_bucket: Bucket) -> None:
    small = store.small
    assert not store.storage.bundles_here()
    for _ in range(2):
        forget_frames(small.store.frames)
        assert pages(small, store.lsns) == store.expected
    blocks = store.storage.blocks
    bundles = len(small.store.layers.state.files)
    assert blocks.cache.slot_count == 1 < bundles
    assert blocks.misses > bundles
    newest = store.lsns[-1]
    s3_bucket.server.kill()
    try:
        assert small.mark(3, newest) == 77, "memory has it"
        for source in store.storage._remote.values():
            blocks.doubt(source, 0, source.size)
        forget_frames(small.store.frames)
        with pytest.raises(LookupError, match="only in the bucket, which does not answer"):
            small.page(5, store.lsns[2])
    finally:
        s3_bucket.server.start()
    blocks._quiet_until -= QUIET_SECONDS
    assert pages(small, store.lsns) == store.expected
    small.put(image(2, 999))
    small.flush()
    small.compact(SMALL_POLICY)
    assert store.storage.bundles_here()
    assert pages(small, store.lsns) == store.expected
    compactor = small.store.compactor
    assert compactor is not None
    assert not compactor.damaged


def test_many_readers_keep_their_connections(
    tmp_path: Path, s3_bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    """Each that was thrown away is a line in the log, and is made anew for the next read."""
    S3Store(s3_bucket.url, s3_bucket.endpoint).put("object", bytes(1 << 20))
    (tmp_path / "D").mkdir()
    storage = open_directory(
        Storage(), tmp_path / "D", s3_bucket.url, s3_bucket.endpoint, Settings(), Wanted()
    )
    count = 3 * PARALLEL_REQUESTS

    def read(_: int) -> int:
        source = RemoteObject("object", 1 << 20)
        return sum(len(storage.blocks.read(source, at << 18, 1 << 18)) for at in range(4))

    with ThreadPoolExecutor(count) as readers:
        assert sum(readers.map(read, range(count))) == count << 20
    assert not [record for record in caplog.records if "pool is full" in record.message]


OFTEN = ("--set", "backup_journal_seconds=0.3", "--set", "flush_seconds_max=1")
SETTINGS = {"wal_keep_size": "1GB"}


def options(bucket: Bucket, *more: str) -> tuple[str, ...]:
    return ("--s3", bucket.url, "--s3-endpoint", bucket.endpoint, *OFTEN, *more)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def status(server: PageServer) -> dict[str, object]:
    with server.client() as client:
        return client.status()


def test_the_directory_is_lost_under_pgbench(
    postgres: PostgresFactory, page_server: PageServerFactory, s3_bucket: Bucket
) -> None:
    """kill -9, an empty directory, the bucket: every page, as the primary has it. On the way files
    are let go and come back, and the directory is refused without the bucket."""
    primary = postgres(18, SETTINGS)
    primary.pgbench("-i", "-s", "2")
    server = page_server(primary, *options(s3_bucket))
    load = primary.start_pgbench("-T", "3", "-c", "2")
    noted = parse(primary.sql("SELECT pg_current_wal_flush_lsn()")[0][0])
    wait_until(lambda: parse(str(status(server)["remote_lsn"] or "0/0")) >= noted, "it is shipped")
    with server.client() as client:
        relation = max(client.relations(noted), key=lambda found: found[4])[:4]
        before = client.get_pages(*relation, 0, 64, noted)
    server.kill()
    shutil.rmtree(server.data_dir)
    server._arguments += ["--set", "block_cache_bytes=16777216"]
    server.start()
    server.wait_until_ready(noted)
    with server.client() as client:
        assert client.get_pages(*relation, 0, 64, noted) == before
        shown = client.status()
        assert shown["remote_read_bytes"] > 0
        assert shown["cache_bytes"] <= 16 << 20
    look_beside(server, s3_bucket, noted)
    assert load.wait(30) == 0
    assert_equal(primary, server, Rules(against="primary"))

    assert server.stop() == ExitCode.OK
    server._arguments += ["--set", "cache_bytes_max=1"]
    server.start()
    server.wait_until_ready()
    with server.client() as client:
        (row,) = client.query("restore chunks all")
        files, fetched, replaced, size = (int(value or 0) for value in row)
        assert files >= fetched > 0 == replaced < size
        wait_until(lambda: status(server)["evicted_count"] >= fetched, "what the bucket has goes")
        assert client.get_pages(*relation, 0, 64, noted) == before
    assert server.stop() == ExitCode.OK
    alone = PageServer(server.data_dir, primary.conninfo())
    alone.start()
    assert alone.process is not None
    assert alone.process.wait(30) == ExitCode.REFUSED
    assert "only in the bucket" in alone.log_tail()
    assert "Traceback" not in server.log_path.read_text()


def look_beside(server: PageServer, bucket: Bucket, lsn: int) -> None:
    """As of an LSN from the bucket alone, while its server lives on: it answers the same, and
    nobody has heard of it."""
    wait_until(lambda: status(server)["backup"] in ("idle", "uploading"), "it has the bucket")
    epoch, directory = status(server)["epoch"], server.data_dir.with_name("beside")
    store = S3Store(bucket.url, bucket.endpoint)
    restore(store, directory, Storage(), store.location.url, lsn=lsn, lazy=True)
    assert not list((directory / "layers").iterdir())
    looking = Serving(directory, "--s3", bucket.url, "--s3-endpoint", bucket.endpoint,
                      **bucket.server.environment)  # fmt: skip
    try:
        looking.wait()
        with PageClient(looking.address) as client, server.client() as living:
            assert digest(client, lsn) == digest(living, lsn)
            shown = client.status()
            assert (shown["state"], shown["backup"]) == ("read-only from the bucket", None)
            assert shown["remote_read_bytes"] > 0
    finally:
        assert looking.end(signal.SIGTERM)[0] == ExitCode.OK
    assert status(server)["epoch"] == epoch
    assert status(server)["state"] == "streaming"
