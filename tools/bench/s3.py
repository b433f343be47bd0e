"""`s3-upload` and `s3-restore`: MB/s of bundles between a directory and a real S3 server beside it.

Ours is what the server does: the uploader, which checks what it reads, sends a CRC-32C with every
part and ends with the bucket's manifest; and restore, which checks all that comes and fsyncs it.
boto3's own TransferManager moves the same bundles, in as many objects and by as many threads, and
does none of that. What the backup of a gigabyte of WAL costs is in the notes.
"""

import functools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from s3transfer.manager import TransferConfig, TransferManager

from engine.storage import Storage
from formats.file_name import FileName
from server.backup import binding
from server.backup.restore import PARALLELISM as RESTORE_PARALLELISM
from server.backup.restore import restore
from server.backup.s3_store import S3Store
from tools.bench.bench import MIB, Bench
from tools.bench.generated_wal import SETTINGS, GeneratedWal, capture
from tools.bench.restart import INSERT
from tools.bench.row import Bar, Row
from tools.bench.s3_uploads import UPLOAD_SETTINGS, Following, cost_of, load_followed
from tools.s3_server import S3Server

UPLOAD = "s3-upload"
RESTORE = "s3-restore"
PEER = "boto3's TransferManager"
ROUNDS = 7
STATEMENTS = 3
BAR = Bar(0.8)
PGBENCH_SECONDS = 4


Move = Callable[[], None]


def run_upload(bench: Bench) -> list[Row]:
    setting = setting_of(bench)
    return [setting.row(UPLOAD, setting.upload, setting.upload_by_boto3)]


def run_restore(bench: Bench) -> list[Row]:
    setting = setting_of(bench)
    setting.upload_by_boto3()()
    setting.upload()()
    return [setting.row(RESTORE, setting.restore, setting.restore_by_boto3)]


@functools.cache
def setting_of(bench: Bench) -> "Setting":
    """Made once for both."""
    return Setting(bench)


class Setting:
    """An S3 server, and a stopped page server's directory with bundles of some hundred MB.

    What moves them is prepared first, with its connection, and only then timed.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.server = bench.resources.enter_context(S3Server(bench.workspace.path))
        os.environ.update(self.server.environment)
        self.bucket = self.server.new_bucket("bench")
        with bench.step("WAL of pgbench, and of a table with random text"):
            wal = _mixed_wal(bench)
        self.directory = wal.page_store
        with bench.step("layers of it, and their backup"):
            store = S3Store(f"s3://{self.bucket}/cost", self.server.endpoint)
            self.position = load_followed(self.directory, wal.end_lsn, store)
            self.cost = cost_of(store.traffic(), wal.size_bytes)
        self.bundles = sorted((self.directory / "layers").glob("*.bundle"))
        self.mib = sum(path.stat().st_size for path in self.bundles) / MIB
        self.upload_count = 0

    def row(self, name: str, ours: Callable[[], Move], peer: Callable[[], Move]) -> Row:
        with self.bench.step(f"{name}, {self.mib:.0f} MB in {len(self.bundles)} bundles"):
            pairs = self.bench.in_turns(ROUNDS, lambda: self._rate(ours), lambda: self._rate(peer))
        return Row.of_pairs(name, "", "MB/s", PEER, pairs, BAR, [self.cost])

    def _rate(self, prepare: Callable[[], Move]) -> float:
        move = prepare()
        began = time.perf_counter()
        move()
        return self.mib / (time.perf_counter() - began)

    # Ours -----------------------------------------------------------------------------------------

    def upload(self) -> Move:
        """All of the directory, to a prefix that nobody used."""
        self.upload_count += 1
        (self.directory / binding.FILE_NAME).unlink(missing_ok=True)
        store = self._store(UPLOAD_SETTINGS.parallel + 2)
        names = {FileName.parse(path.name) for path in self.bundles}

        def move() -> None:
            with Following(
                self.directory, store, lambda: self.position, lambda: names
            ) as following:
                following.wait()

        return move

    def restore(self) -> Move:
        """All of the newest upload, into a new directory."""
        directory = self._emptied("restored")
        store = self._store(RESTORE_PARALLELISM)

        def move() -> None:
            restore(store, directory, Storage(), store.location.url)

        return move

    def _store(self, parallelism: int) -> S3Store:
        url = f"s3://{self.bucket}/ours-{self.upload_count}"
        return S3Store(url, self.server.endpoint, parallelism=parallelism)

    def _emptied(self, purpose: str) -> Path:
        directory = self.bench.workspace.path / purpose
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        return directory

    # boto3's --------------------------------------------------------------------------------------

    def upload_by_boto3(self) -> Move:
        return self._by_boto3(
            UPLOAD_SETTINGS.parallel,
            lambda transfers, path: transfers.upload(str(path), self.bucket, f"peer/{path.name}"),
        )

    def restore_by_boto3(self) -> Move:
        directory = self._emptied("downloaded")
        return self._by_boto3(
            RESTORE_PARALLELISM,
            lambda transfers, path: transfers.download(
                self.bucket, f"peer/{path.name}", str(directory / path.name)
            ),
        )

    def _by_boto3(self, parallelism: int, start: Callable[[Any, Path], Any]) -> Move:
        config = TransferConfig(max_request_concurrency=parallelism)
        client = self.server.client()

        def move() -> None:
            with TransferManager(client, config) as transfers:
                for future in [start(transfers, path) for path in self.bundles]:
                    future.result()

        return move


def _mixed_wal(bench: Bench) -> GeneratedWal:
    """Half of it of many small records, half of pages that compress to a half."""
    primary = bench.workspace.cluster(settings=SETTINGS).start()
    primary.pgbench("-i", "-q", "-s", str(bench.scale))
    primary.sql("CREATE TABLE wide(a int, b text STORAGE PLAIN)")

    def load() -> None:
        for _ in range(1 if bench.quick else STATEMENTS):
            primary.sql(INSERT)
            primary.pgbench("-n", "-c", "2", "-T", str(PGBENCH_SECONDS))

    wal = capture(bench.workspace, primary, "mixed", load)
    primary.stop()
    return wal
