"""The machine is lost, and the bucket is not: every page comes back, on a real S3 server.

A page server runs under pgbench with a backup. It is killed and its directory removed. Then the
bucket is restored four ways, read back, and damaged.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from engine import server_id
from engine.storage import Storage
from formats.bucket_state import BucketState
from formats.errors import CorruptionError
from formats.lsn import parse, show
from server.attach import default_slot_name
from server.backup.bucket_manifest import BucketManifest
from server.backup.restore import Silence, boottime, restore
from server.backup.restore_plan import plan
from server.backup.s3_store import S3Store
from server.backup.scrub import scrub
from server.client import PageClient, PageServerError
from server.exit_code import ExitCode
from tests.fixtures.page_digest import digest
from tests.fixtures.s3_server import Bucket
from tests.fixtures.serving import ROOT, Serving, command
from tools.compare import compare
from tools.excuses import Rules
from tools.page_server import PageServer
from tools.postgres import Server
from tools.primary_wal import PrimaryWal

SETTINGS = ("--set", "flush_seconds_max=1.5", "--set", "backup_journal_seconds=0.4")
WAIT_SECONDS_MAX = 60.0
ANSWER_SECONDS_MAX = 5.0  # of what is refused at once; what waits for an LSN waits for 30 s


def pageserver(*arguments: object) -> tuple[int, str, str]:
    """A command's exit status, and what it said on stdout and on stderr."""
    done = subprocess.run(
        command("server.cli", *arguments), cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=WAIT_SECONDS_MAX,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def state_of(store: S3Store) -> BucketState:
    return BucketManifest(store, boottime).read()


def flush_lsn(primary: Server) -> int:
    return parse(primary.sql("SELECT pg_current_wal_flush_lsn()")[0][0])


def wait_for_remote(store: S3Store, lsn: int) -> BucketState:
    """Until the bucket has WAL up to an LSN."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while (state := state_of(store)).remote_lsn < lsn:
        assert time.monotonic() < deadline, f"the bucket is at {show(state.remote_lsn)}"
        time.sleep(0.1)
    return state


class Backup:
    """A bucket with the backup of a server that is lost, and what the server answered."""

    def __init__(self, bucket: Bucket, tmp_path: Path) -> None:
        self.bucket = bucket
        self.tmp_path = tmp_path
        self.store = S3Store(bucket.url, bucket.endpoint)
        self.at = ("--from", bucket.url, "--s3-endpoint", bucket.endpoint)
        self.right: dict[int, dict[tuple[object, ...], object]] = {}
        self.end = 0

    def lose(self, primary: Server, server: PageServer) -> None:
        """Note what is right at some LSNs under load, then kill the server and all it has."""
        load = primary.start_pgbench("-T", "600", "-c", "2")
        noted = []
        for _ in range(2):
            time.sleep(0.7)
            noted.append(flush_lsn(primary))
        wait_for_remote(self.store, noted[-1])
        for uploader in uploaders_of(server):
            os.kill(uploader, signal.SIGSTOP)  # from here on the bucket stays as it is
        self.end = state_of(self.store).remote_lsn
        server.wait_until_ready(self.end)
        with server.client() as client:
            for lsn in (*noted, self.end):
                self.right[lsn] = digest(client, lsn)
        assert load.poll() is None
        server.kill()
        shutil.rmtree(server.data_dir)
        time.sleep(0.5)
        load.terminate()
        load.wait()

    def restore(self, name: str, lsn: int | None = None, *, lazy: bool = False) -> Path:
        directory = self.tmp_path / name
        url = self.store.location.url
        assert restore(self.store, directory, Storage(), url, lsn=lsn, lazy=lazy) is not None
        return directory

    def check(
        self, directory: Path, lsns: list[int], *options: str, to_its_end: bool = False
    ) -> None:
        """That a directory without a source answers as the lost server did, and waits for nothing
        newer; `to_its_end`: at the remote LSN as well. That may lie inside of a record, and the
        state is the one before it."""
        serving = Serving(directory, *options, **self.bucket.server.environment)
        try:
            serving.wait()
            with PageClient(serving.address) as client:
                for lsn in lsns:
                    wait_until_ready(client, lsn)
                    assert digest(client, lsn) == self.right[lsn], show(lsn)
                from_bucket = " from the bucket" if options else ""
                assert client.status()["state"] == "read-only" + from_bucket
                begin = time.monotonic()
                with pytest.raises(PageServerError, match="where what is here ends; no WAL comes"):
                    client.relations(self.end + (1 << 30))
                assert time.monotonic() - begin < ANSWER_SECONDS_MAX
                if to_its_end:
                    before, ready = 0, ready_lsn(client)
                    while before != ready:  # its journal is ingested
                        time.sleep(0.5)
                        before, ready = ready, ready_lsn(client)
                    assert digest(client, ready) == self.right[self.end]
        finally:
            serving.end(signal.SIGTERM)


def ready_lsn(client: PageClient) -> int:
    return parse(str(client.status()["ready_lsn"]))


def wait_until_ready(client: PageClient, lsn: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while ready_lsn(client) < lsn:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def uploaders_of(server: PageServer) -> list[int]:
    """The process that sends the server's backup."""
    assert server.process is not None
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(word) for path in children for word in path.read_text().split()]
    named = [pid for pid in found if b"upload_process" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert named
    return named


@pytest.fixture
def backup(postgres, page_server, s3_bucket: Bucket, tmp_path: Path) -> tuple[Backup, Server]:
    """A backup whose server is lost, and the primary, which goes on."""
    primary = postgres(18, {"wal_keep_size": "1GB"})
    primary.pgbench("-i", "-q", "-s", "1")
    options = ("--s3", s3_bucket.url, "--s3-endpoint", s3_bucket.endpoint)
    server = page_server(primary, *SETTINGS, *options)
    backup = Backup(s3_bucket, tmp_path)
    backup.lose(primary, server)
    return backup, primary


def test_the_machine_is_lost(backup: tuple[Backup, Server]) -> None:
    """With the primary, without it, as of earlier, and damaged: one load for all."""
    saved, primary = backup
    noted = sorted(saved.right)
    directory = saved.tmp_path / "restored"
    code, said, error = pageserver("restore", *saved.at, "--data-dir", directory, "--json")
    assert code == 0, error
    assert json.loads(said)["end_lsn"] == show(saved.end)
    catch_up_and_compare(directory, primary)
    # The primary is gone now. What the bucket has alone is what the lost server answered.
    saved.check(saved.restore("alone"), noted[:-1], to_its_end=True)
    saved.check(saved.restore("earlier", noted[0]), noted[:1])
    saved.check(saved.restore("later", noted[1]), noted[:2])
    read_from_the_bucket(saved, noted)
    find_damage(saved)


def catch_up_and_compare(directory: Path, primary: Server) -> None:
    """As the demonstration does: every page equal at the end of the shutdown checkpoint.

    By the slot of the server that is lost, which is to be named where it does not go on there.
    """
    server = PageServer(directory, primary.conninfo())
    server.start()
    assert server.process is not None and server.process.wait(60) == ExitCode.REFUSED
    assert "--slot NAME" in server.log_tail()
    slot = default_slot_name(server_id.read(Storage(), directory))
    server = PageServer(directory, primary.conninfo(), "--slot", slot)
    server.start()
    try:
        server.wait_until_ready(flush_lsn(primary))
        primary.stop()
        end = primary.shutdown_checkpoint_end()
        server.wait_until_ready(end)
        rules = Rules("primary", wal=PrimaryWal(primary.data_dir / "pg_wal"))
        with server.client() as client:
            result = compare(primary.data_dir, client, end, rules)
        assert [str(difference) for difference in result.differences] == []
        assert result.blocks_compared.total() > 1000
    finally:
        server.kill()


def read_from_the_bucket(saved: Backup, noted: list[int]) -> None:
    """As of an LSN, with no layers here: twice, and the bucket is what it was."""
    before = list(saved.store.list(""))
    directory = saved.restore("from the bucket", noted[1], lazy=True)
    assert not list((directory / "layers").iterdir())
    bucket = ("--s3", saved.bucket.url, "--s3-endpoint", saved.bucket.endpoint)
    for lsns in (noted[:2], noted[:1]):
        saved.check(directory, lsns, *bucket)
    elsewhere = ("--s3", f"{saved.bucket.url}2", *bucket[2:])
    code, _, error = pageserver("serve", "--data-dir", directory, *elsewhere)
    assert code == ExitCode.REFUSED
    assert f"reads its layers there, not in {saved.bucket.url}2" in error
    assert list(saved.store.list("")) == before


def find_damage(saved: Backup) -> None:
    """A flipped byte in an object of each kind: scrub and restore name it."""
    code, said, error = pageserver("scrub", *saved.at, "--json")
    assert (code, json.loads(said)["problems"]) == (0, []), error
    assert json.loads(said)["never_verified"] == 0
    generator, store = random.Random(6), saved.store
    store.delete([info.name for info in store.list("snapshot/")])  # now each entry is needed
    needed = plan(state_of(store))  # just after a flush there may be no WAL above it
    named = {*needed.objects.values(), *(piece.name for piece in needed.pieces)}
    named.update(info.name for info in store.list("manifest/"))
    kinds = {name.partition("/")[0] for name in named}
    assert {"layers", "manifest"} <= kinds
    for kind in sorted(kinds):
        name = generator.choice(sorted(each for each in named if each.startswith(f"{kind}/")))
        whole = store.get(name)
        at = generator.randrange(len(whole))
        store.put(name, whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        assert {problem.object for problem in scrub(store, Silence()).problems} == {name}
        directory = saved.tmp_path / f"damaged {kind}"
        with pytest.raises(CorruptionError, match=name):
            restore(store, directory, Storage(), store.location.url)
        assert not (directory / "manifest").exists()
        store.put(name, whole)
