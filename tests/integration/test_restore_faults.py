"""Restores and reads of a bucket on a network that fails in every way it can: right bytes, or an
error that says what failed; a restore that ended goes on.

A proxy between boto3 and a real S3 server does it; what is right was noted by the server whose
backup it is. Seeded.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from engine import index_rebuild
from engine.block_cache import BLOCK_BYTES
from engine.errors import DirectoryRefusedError
from engine.lazy_storage import LazyStorage
from engine.page_store import PageStore
from engine.storage import Storage
from formats.errors import CorruptionError
from server.backup import fetch, s3_client
from server.backup.bucket_files import BucketFiles
from server.backup.object_store import StoreError, TransientError
from server.backup.restore import restore
from server.backup.restore_target import refuse_unfinished
from server.backup.s3_store import S3Store
from tests.fixtures.lazy_store import forget_frames
from tests.fixtures.restore_source import Source, opened
from tests.fixtures.s3_proxy import Fault, S3Proxy
from tests.fixtures.s3_server import S3Server
from tests.fixtures.small_store import MEMORY_BYTES
from tests.fixtures.store_answers import pages_of

SECONDS_MAX = 0.5  # without a byte, until a request is given up
FAULTS = (
    Fault.DROP_REQUEST,
    Fault.DROP_ANSWER,
    Fault.DELAY,
    Fault.TWICE,
    Fault.CUT_ANSWER,
    Fault.FLIP_ANSWER,
    Fault.ANSWER_500,
    Fault.ANSWER_503,
    Fault.ANSWER_429,
)
QUICK = [fault for fault in FAULTS if fault is not Fault.DELAY]
LASTING = [
    Fault.DROP_REQUEST,
    Fault.DROP_ANSWER,
    Fault.CUT_ANSWER,
    Fault.FLIP_ANSWER,
    Fault.ANSWER_503,
]
SEED = 6
KINDS = ("layers/", "journal/", "manifest/", "list-type")


class World:
    """The saved bucket on an S3 server, and a way to it that fails."""

    def __init__(self, server: S3Server, proxy: S3Proxy, saved: Source) -> None:
        self.proxy = proxy
        self.saved = saved
        url = f"s3://{server.new_bucket('restores')}/p"
        direct = S3Store(url, server.endpoint)
        for name, stored in saved.bucket.objects.items():
            direct.put(name, stored.data)
        self.store = S3Store(url, proxy.endpoint, parallelism=16, sleep=lambda seconds: None)
        self.url = self.store.location.url

    def order(self, fault: Fault, kind: str, *, nth: int = 1, times: int = 1) -> None:
        seconds = 2 * SECONDS_MAX if fault is Fault.DELAY else 0.0
        self.proxy.fault(fault, "GET", kind, nth=nth, times=times, seconds=seconds)

    def restore(self, directory: Path, **options: object) -> int | None:
        """How many bundles an earlier call had brought; None: it had done all."""
        done = restore(
            self.store, directory, Storage(), self.url, sleep=lambda seconds: None, **options
        )
        return None if done is None else done.files_kept


@pytest.fixture(scope="module")
def module_world(s3_server: S3Server, saved: Source) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch, S3Proxy(s3_server) as proxy:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        patch.setattr(index_rebuild, "check_in_child", lambda path: True)
        patch.setattr(s3_client, "READ_SECONDS_MAX", SECONDS_MAX)
        patch.setattr(fetch, "ATTEMPTS_MAX", 3)
        patch.setattr(fetch, "FIRST_PAUSE_SECONDS", 0.0)
        patch.setattr("engine.remote_blocks.QUIET_SECONDS", 0.0)
        backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
        patch.setattr(backoff, lambda self, context: 0.001)
        yield World(s3_server, proxy, saved)


@pytest.fixture
def world(module_world: World) -> Iterator[World]:
    yield module_world
    module_world.proxy.forget()


def is_clear(error: object, kind: str = "") -> bool:
    """Whether a text says which object, or what of the bucket."""
    text = str(error)
    return kind.removesuffix("list-type") in text and ("s3://" in text or "/0" in text)


# Whole restores ----------------------------------------------------------------------------------


def test_one_fault_of_each_kind_is_made_good(world: World, tmp_path: Path) -> None:
    """Of requests of each kind; a listing has no checksum, so its flipped bytes are below."""
    met = len(world.proxy.met)
    for nth, fault in enumerate(FAULTS, 1):
        world.order(fault, "layers/", nth=nth)
    for fault, kind in zip(
        (*QUICK, *QUICK), ("journal/", "manifest/", "list-type") * 4, strict=False
    ):
        if (fault, kind) != (Fault.FLIP_ANSWER, "list-type"):
            world.order(fault, kind)
    assert world.restore(tmp_path / "new") == 0
    assert set(world.proxy.met[met:]) == set(FAULTS)
    store = opened(tmp_path / "new")
    world.saved.check(store)
    store.close()


def test_a_lasting_fault_ends_it_and_the_same_call_goes_on(world: World, tmp_path: Path) -> None:
    """One after the other in one directory: the first lets some bundles through."""
    directory = tmp_path / "new"
    plan = [("layers/", fault) for fault in LASTING]
    plan += [("journal/", fault) for fault in (Fault.CUT_ANSWER, Fault.FLIP_ANSWER)]
    for place, (kind, fault) in enumerate(plan):
        world.order(fault, kind, nth=1 if place else 4, times=10_000)
        with pytest.raises((TransientError, CorruptionError)) as ended:
            world.restore(directory)
        assert is_clear(ended.value, kind)
        with pytest.raises(DirectoryRefusedError, match="unfinished restore"):
            refuse_unfinished(Storage(), directory)
        world.proxy.forget()
    kept = world.restore(directory)
    assert kept is not None
    assert kept > 0
    store = opened(directory)
    world.saved.check(store)
    store.close()


def test_any_faults_at_any_requests(world: World, tmp_path: Path) -> None:
    """Of whole restores, and as of an LSN; a listing's flipped bytes among them."""
    random, failed = Random(SEED), 0
    for round_ in range(2):
        directory, lsn = tmp_path / f"{round_}", random.choice([None, *world.saved.answers])
        world.order(random.choice(LASTING), "layers/", nth=random.randrange(1, 4), times=10_000)
        for _ in range(12):
            nth, times = random.randrange(1, 30), random.choice([1, 1, 3, 40])
            world.order(random.choice(QUICK), random.choice(KINDS), nth=nth, times=times)
        while True:
            try:
                world.restore(directory, lsn=lsn)
                break
            except (StoreError, CorruptionError) as error:
                text = str(error)
                failed += 1
                if failed % 3 == 0:
                    world.proxy.forget()
            assert is_clear(text), text
        store = opened(directory)
        world.saved.check(store, lsn)
        store.close()
    assert failed


# Lazy reads --------------------------------------------------------------------------------------


def compare(world: World, store: PageStore, lsn: int) -> list[str]:
    """Each page is right, or an error that says why; these."""
    failures = []
    for question, right in world.saved.answers[lsn].items():
        if question[0] != "relation":
            continue
        for found, page in zip(pages_of(store, *question[1:], len(right), lsn), right, strict=True):
            if found != page:
                assert isinstance(found, str), f"a wrong page of {question}"
                failures.append(found)
    return failures


@pytest.fixture
def lazy(world: World, tmp_path: Path) -> Iterator[PageStore]:
    """With a cache of one block, and an index."""
    directory = tmp_path / "lazy"
    world.restore(directory, lazy=True)
    storage = LazyStorage(directory, BucketFiles(world.store), BLOCK_BYTES)
    store = PageStore(directory, MEMORY_BYTES, storage)
    while store.ingest_step():
        pass
    yield store
    store.close()


def test_a_fault_of_a_lazy_read_is_made_good(world: World, lazy: PageStore) -> None:
    met = len(world.proxy.met)
    for fault in FAULTS:
        world.order(fault, "layers/")
        forget_frames(lazy.frames)
        assert compare(world, lazy, world.saved.horizon) == []
    assert world.proxy.met[met:] == list(FAULTS)


def test_a_lasting_fault_of_lazy_reads_is_an_error_of_each(world: World, lazy: PageStore) -> None:
    for fault in LASTING:
        world.order(fault, "layers/", nth=2, times=10_000)
        forget_frames(lazy.frames)
        failures = compare(world, lazy, world.saved.held)
        assert failures
        assert all("layers/" in text for text in failures)
        is_damage = fault is Fault.FLIP_ANSWER
        assert all(("does not answer" in text) is not is_damage for text in failures)
        world.proxy.forget()
        assert compare(world, lazy, world.saved.held) == []
    world.saved.check(lazy)


def test_any_faults_of_lazy_reads(world: World, lazy: PageStore) -> None:
    random, failed, lsns = Random(SEED), 0, sorted(world.saved.answers)
    for _ in range(8):
        world.order(random.choice(LASTING), "layers/", nth=random.randrange(1, 12), times=10_000)
        for _ in range(4):
            nth, times = random.randrange(1, 12), random.choice([1, 4, 20])
            world.order(random.choice(QUICK), "layers/", nth=nth, times=times)
        forget_frames(lazy.frames)
        failed += len(compare(world, lazy, random.choice(lsns)))
        world.proxy.forget()
    assert failed
    world.saved.check(lazy)
