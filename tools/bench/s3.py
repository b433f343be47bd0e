"""`s3-upload` and `s3-restore`: MB/s between files and a real S3 server on this machine.

Ours and boto3's own TransferManager move the same bytes in as many objects, by as many threads.
Ours sends a CRC-32C of every part, which the server checks, and checks the length of what comes.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from s3transfer.manager import TransferConfig, TransferManager

from server.backup.s3_store import S3Store
from tools.bench.bench import MIB, Bench
from tools.bench.row import Bar, Row
from tools.s3_server import S3Server

UPLOAD = "s3-upload"
RESTORE = "s3-restore"
PEER = "boto3's TransferManager"
ROUNDS = 5
FILES = 8
FILE_BYTES = 32 * MIB
PARALLELISM = 8
PIECE_BYTES = MIB
BAR = Bar(0.8)


def run_upload(bench: Bench) -> list[Row]:
    return [_run(bench, UPLOAD, _upload, _upload_by_boto3)]


def run_restore(bench: Bench) -> list[Row]:
    return [_run(bench, RESTORE, _restore, _restore_by_boto3)]


class Setting:
    """A server with the files in a bucket, and the files."""

    def __init__(self, bench: Bench) -> None:
        self.server = bench.resources.enter_context(S3Server(bench.workspace.path))
        os.environ.update(self.server.environment)
        self.bucket = self.server.new_bucket("bench")
        self.directory = bench.new_directory("files")
        self.out = bench.new_directory("out")
        bytes_each = FILE_BYTES // 8 if bench.quick else FILE_BYTES
        numbers = random.Random(1)
        for number in range(FILES):
            (self.directory / f"{number:02}").write_bytes(numbers.randbytes(bytes_each))
        self.names = sorted(path.name for path in self.directory.iterdir())
        self.mib = FILES * bytes_each / MIB
        self.store = S3Store(
            f"s3://{self.bucket}/ours", self.server.endpoint, parallelism=PARALLELISM
        )


def _run(
    bench: Bench,
    name: str,
    ours: Callable[[Setting], None],
    peer: Callable[[Setting], None],
) -> Row:
    setting = Setting(bench)
    with bench.step(f"{name}, {setting.mib:.0f} MB in {FILES} objects"):
        for upload in (_upload, _upload_by_boto3):
            upload(setting)
        pairs = bench.in_turns(ROUNDS, lambda: _rate(setting, ours), lambda: _rate(setting, peer))
    setting.server.close()
    return Row.of_pairs(name, "", "MB/s", PEER, pairs, BAR, [_traffic(setting)])


def _rate(setting: Setting, move: Callable[[Setting], None]) -> float:
    began = time.perf_counter()
    move(setting)
    rate = setting.mib / (time.perf_counter() - began)
    for path in setting.out.iterdir():
        assert path.read_bytes() == (setting.directory / path.name).read_bytes()
        path.unlink()
    return rate


def _upload(setting: Setting) -> None:
    def upload(name: str) -> None:
        path = setting.directory / name
        setting.store.put_stream(name, _pieces(path), path.stat().st_size)

    with ThreadPoolExecutor(PARALLELISM) as threads:
        list(threads.map(upload, setting.names))


def _pieces(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _restore(setting: Setting) -> None:
    def restore(name: str) -> None:
        with open(setting.out / name, "wb") as file:
            for piece in setting.store.get_stream(name):
                file.write(piece)

    with ThreadPoolExecutor(PARALLELISM) as threads:
        list(threads.map(restore, setting.names))


def _by_boto3(setting: Setting, start: Callable[[TransferManager, str, str], Any]) -> None:
    config = TransferConfig(max_request_concurrency=PARALLELISM)
    with TransferManager(setting.server.client(), config) as transfers:
        for future in [start(transfers, name, f"peer/{name}") for name in setting.names]:
            future.result()


def _upload_by_boto3(setting: Setting) -> None:
    _by_boto3(
        setting,
        lambda transfers, name, key: transfers.upload(
            str(setting.directory / name), setting.bucket, key
        ),
    )


def _restore_by_boto3(setting: Setting) -> None:
    _by_boto3(
        setting,
        lambda transfers, name, key: transfers.download(
            setting.bucket, key, str(setting.out / name)
        ),
    )


def _traffic(setting: Setting) -> str:
    seen = setting.store.traffic()
    requests = ", ".join(f"{count} {kind}" for kind, count in sorted(seen.requests.items()))
    sent, received = seen.bytes_sent / MIB, seen.bytes_received / MIB
    return f"ours: {requests}; {sent:.0f} MB sent, {received:.0f} MB received"
