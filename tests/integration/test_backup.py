"""Backup on a real S3 server, beside a real PostgreSQL: what the bucket has, and what is said."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from formats.bucket_state import BucketState
from formats.lsn import parse
from server.backup.bucket_manifest import BucketManifest
from server.backup.s3_store import S3Store
from server.exit_code import ExitCode
from tests.fixtures.s3_server import Bucket
from tools.page_server import PageServer
from tools.postgres import Server

SECONDS_MAX = 90.0
OFTEN = ("--set", "backup_journal_seconds=0.3")


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def options(bucket: Bucket) -> tuple[str, ...]:
    return ("--s3", bucket.url, "--s3-endpoint", bucket.endpoint, *OFTEN)


def status(server: PageServer) -> dict[str, object]:
    with server.client() as client:
        return client.status()


def flush_lsn(primary: Server) -> int:
    return parse(primary.sql("SELECT pg_current_wal_flush_lsn()")[0][0])


def remote_lsn(server: PageServer) -> int:
    return parse(str(status(server)["remote_lsn"] or "0/0"))


def bucket_state(bucket: Bucket) -> BucketState:
    """What is in the bucket, all of whose objects are there."""
    store = S3Store(bucket.url, bucket.endpoint)
    state = BucketManifest(store, time.monotonic).read()
    there = {info.name for info in store.list("")}
    assert set(state.objects()) <= there
    return state


def uploader_of(server: PageServer) -> int:
    """The process id of its child."""
    assert server.process is not None
    found = []
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that ended
            found += (task / "children").read_text().split()
    (child,) = found
    return int(child)


def write(primary: Server, rows: int = 2000) -> int:
    """Some WAL, flushed; where it ends."""
    primary.sql(f"INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, {rows}) g")
    return flush_lsn(primary)


def test_the_bucket_follows_whatever_dies(postgres, page_server, s3_bucket, s3_server):
    primary = postgres(18, {"autovacuum": "off"})
    primary.sql("CREATE TABLE t(a int, b text)")
    more = ("--set", "flush_seconds_max=1", "--set", "durability=s3", "--slot", "first")
    server = page_server(primary, *options(s3_bucket), *more)
    end = write(primary)
    wait_until(lambda: remote_lsn(server) >= end, "the remote LSN follows")
    wait_until(lambda: bucket_state(s3_bucket).manifest.durable_lsn >= end, "and layers do")
    wait_until(lambda: acknowledged(primary) >= end, "what is there is acknowledged as applied")
    shown = status(server)
    assert shown["epoch"] == 1 and shown["backup"] in ("idle", "uploading")

    s3_server.kill()
    before, end = acknowledged(primary), write(primary)
    wait_until(lambda: str(status(server)["backup"]).startswith("retrying: "), "it is said")
    wait_until(lambda: parse(str(status(server)["ready_lsn"])) >= end, "WAL is taken")
    assert remote_lsn(server) < end and acknowledged(primary) < end
    assert status(server)["backup_lag_bytes"] > 0

    child = uploader_of(server)
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    wait_until(lambda: not Path(f"/proc/{child}").exists(), "no process is left behind")
    server.start()
    server.wait_until_ready(end)
    wait_until(lambda: str(status(server)["backup"]).startswith("retrying: "), "it starts without")
    s3_server.start()
    assert bucket_state(s3_bucket).remote_lsn >= before
    wait_until(lambda: remote_lsn(server) >= end, "it recovers")
    wait_until(lambda: status(server)["backup"] in ("idle", "uploading"), "and says so")

    epoch = status(server)["epoch"]
    os.kill(uploader_of(server), signal.SIGKILL)
    end = write(primary)
    wait_until(lambda: status(server)["epoch"] not in (None, epoch), "it is started again")
    wait_until(lambda: remote_lsn(server) >= end, "and goes on")
    for _ in range(5):
        write(primary, 300)
        told = acknowledged(primary)
        assert told <= bucket_state(s3_bucket).remote_lsn

    end = write(primary, 10)
    wait_until(lambda: parse(str(status(server)["flushed_lsn"])) >= end, "it is flushed here")
    assert server.stop() == ExitCode.OK
    log = server.log_path.read_text()
    assert "Traceback" not in log and "the backup goes on" in log
    assert bucket_state(s3_bucket).remote_lsn >= end

    server.start()
    server.wait_until_ready(end)
    check_fencing(primary, server, s3_bucket)


def check_fencing(primary: Server, server: PageServer, bucket: Bucket) -> None:
    """Another server takes the prefix over: this one acknowledges nothing more, and says so."""
    wait_until(lambda: status(server)["state"] == "streaming", "it receives")
    manifest = BucketManifest(S3Store(bucket.url, bucket.endpoint), time.monotonic)
    manifest.read()
    manifest.take_epoch("another", "0badcafe")
    end = write(primary)
    wait_until(lambda: status(server)["backup"] == "fenced", "it is fenced")
    wait_until(lambda: acknowledged(primary) == 0, "it leaves the source")
    shown = status(server)
    assert shown["state"] == "fenced" and "epoch" in str(shown["error"])
    assert manifest.state.remote_lsn < end
    with server.client() as client:
        assert client.relations()
    assert server.stop() == ExitCode.OK
    server.start()
    assert server.process is not None
    assert server.process.wait(SECONDS_MAX) == ExitCode.REFUSED
    assert "does not come from" in server.log_tail()


def acknowledged(primary: Server) -> int:
    """Up to where the primary takes WAL for applied; 0: it knows nobody, or was told nothing."""
    rows = primary.sql(
        "SELECT replay_lsn FROM pg_stat_replication WHERE application_name = 'first'"
    )
    return parse(rows[0][0]) if rows and rows[0][0] else 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "AWS_SECRET_ACCESS_KEY"),
        ({"--s3": "s3://there-is-none/x"}, "there-is-none"),
    ],
)
def test_what_is_refused_at_start(page_server, s3_bucket, tmp_path, monkeypatch, change, said):
    arguments = list(options(s3_bucket))
    for name, value in change.items():
        if name.startswith("--"):
            arguments[arguments.index(name) + 1] = value
        else:
            monkeypatch.setenv(name, value)
    server = PageServer(tmp_path / "pages", "host=127.0.0.1 port=1", *arguments)
    server.start()
    try:
        assert server.process is not None
        assert server.process.wait(SECONDS_MAX) == ExitCode.REFUSED
        assert said in server.log_tail()
    finally:
        server.kill()
