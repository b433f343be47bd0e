"""The ObjectStore on S3, against a real S3 server."""

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from time import sleep

import pytest

from server.backup import s3_client, s3_upload
from server.backup.conditional_put import probe
from server.backup.object_store import NotThereError, StoreError, TakenError, TransientError
from server.backup.s3_store import S3Store
from tests.fixtures.s3_server import Bucket


@pytest.fixture
def store(s3_bucket: Bucket) -> S3Store:
    return S3Store(s3_bucket.url, s3_bucket.endpoint)


def test_what_is_put_is_there(store: S3Store) -> None:
    store.put("manifest/1", b"some bytes")
    assert store.get("manifest/1") == b"some bytes"
    assert store.get("manifest/1", 5) == b"bytes"
    assert store.get("manifest/1", 5, 2) == b"by"
    assert store.get("manifest/1", 5, 100) == b"bytes"
    assert store.get("manifest/1", 10, 1) == b""
    with pytest.raises(NotThereError, match="/backup/manifest/2"):
        store.get("manifest/2")


def test_a_name_that_is_taken_is_refused(store: S3Store) -> None:
    store.put_new("manifest/1", b"mine")
    with pytest.raises(TakenError):
        store.put_new("manifest/1", b"theirs")
    assert store.get("manifest/1") == b"mine"
    probe(store, "nonce")
    assert [found.name for found in store.list("")] == ["manifest/1"]


def test_one_of_many_that_come_at_once_is_told_that_it_was_first(store: S3Store) -> None:
    with ThreadPoolExecutor(3) as threads:
        for race in range(2):
            name, racers = f"manifest/{race}", [b"%d" % racer for racer in range(3)]
            won = [data for data, first in zip(racers, threads.map(
                lambda data, name=name: is_first(store, name, data), racers
            ), strict=True) if first]  # fmt: skip
            assert won == [store.get(name)]


def is_first(store: S3Store, name: str, data: bytes) -> bool:
    try:
        store.put_new(name, data)
    except TakenError:
        return False
    return True


def test_a_large_object_goes_in_parts(store: S3Store) -> None:
    pieces = [bytes([number]) * 5_000_001 for number in range(8)]
    store.put_stream("layers/large", iter(pieces), sum(map(len, pieces)))
    assert b"".join(store.get_stream("layers/large")) == b"".join(pieces)
    assert store.traffic().requests["UploadPart"] == 3


def test_objects_are_listed_in_order_and_deleted(store: S3Store) -> None:
    names = [f"layers/{number:04}" for number in range(12)]
    for name in reversed(names):
        store.put(name, b"x")
    assert [found.name for found in store.list("layers/")] == names
    assert [found.name for found in store.list("layers/", names[4])] == names[5:]
    store.delete([*names[:6], "layers/none"])
    assert [found.name for found in store.list("")] == names[6:]


def test_many_objects_are_listed_in_pages_and_deleted_in_batches(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.backup.s3_store.NAMES_AT_ONCE_MAX", 5)
    names = [f"journal/{number:04}" for number in range(12)]
    for name in names:
        store.put(name, b"x")
    before = store.traffic().requests
    assert [found.name for found in store.list("journal/", names[0])] == names[1:]
    store.delete(names[1:])
    assert [found.name for found in store.list("")] == names[:1]
    requests = store.traffic().requests - before
    assert requests == Counter(ListObjectsV2=4, DeleteObjects=3)


def test_listing_is_that_of_a_sorted_dictionary(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.backup.s3_store.NAMES_AT_ONCE_MAX", 3)
    numbers = random.Random(1)
    folders = ["journal/00000001/", "layers/00000001/", "layers/0000000a/", "manifest/"]
    sizes = {f"{folder}{numbers.randrange(1 << 32):08x}": numbers.randrange(1, 100)
             for folder in folders for _ in range(6)}  # fmt: skip
    store.put("", b"as some tools make them")
    for name, size in sizes.items():
        store.put(name, bytes(size))
    names = sorted(sizes)
    prefixes = ["", "layers", "layers/", "layers/00000001/", "layers/0000000a/0", names[3], "none/"]
    afters = ["", *numbers.sample(names, 4), "layers/0000000", "zzz"]
    for prefix in prefixes:
        for after in afters:
            expected = [name for name in names if name.startswith(prefix) and name > after]
            found = list(store.list(prefix, after))
            assert [one.name for one in found] == expected, (prefix, after)
            assert [one.size for one in found] == [sizes[name] for name in expected]


def test_the_clock_is_the_stores(store: S3Store) -> None:
    first = store.now()
    store.put("name", b"x")
    (found,) = store.list("")
    assert first <= store.now()
    assert abs(found.modified - store.now()) <= 2.0


def test_what_went_over_the_wire_is_counted(store: S3Store) -> None:
    store.put("name", bytes(1000))
    store.get("name")
    store.get("name", 10, 90)
    list(store.get_stream("name"))
    seen = store.traffic()
    assert seen.requests == Counter(PutObject=1, GetObject=3)
    assert (seen.bytes_sent, seen.bytes_received) == (1000, 2090)


def test_bandwidth_is_bounded(s3_bucket: Bucket) -> None:
    rests: list[float] = []
    store = S3Store(
        s3_bucket.url, s3_bucket.endpoint, bytes_per_second=1_000_000, sleep=rests.append
    )
    store.put_stream("name", iter([bytes(1_000_000)] * 3), 3_000_000)
    assert len(list(store.get_stream("name"))) >= 3
    assert sum(rests) > 4.0  # nobody slept: what the next owes is added to it


def test_encryption_at_rest(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    data = s3_bucket.server.directory / "data"
    secret = random.Random(1).randbytes(3000)
    for encryption, is_seen in (("AES256", False), ("", True)):
        monkeypatch.setenv("PAGESERVER_S3_ENCRYPTION", encryption)
        store = S3Store(s3_bucket.url, s3_bucket.endpoint)
        store.put("name", secret)
        assert store.get("name") == secret
        assert any(secret in file.read_bytes() for file in data.glob("*.dat")) == is_seen


def test_a_killed_server_loses_nothing_that_it_acknowledged(
    s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "ATTEMPTS_MAX", 1)
    monkeypatch.setattr(s3_upload, "PART_BYTES", 5 << 20)
    store = S3Store(s3_bucket.url, s3_bucket.endpoint)
    acknowledged: dict[str, bytes] = {}

    def write(writer: int) -> None:
        for number in range(10_000):
            name, data = f"small/{writer}-{number}", bytes([writer, number % 256]) * 5000
            try:
                store.put_new(name, data)
            except StoreError:
                return
            acknowledged[name] = data

    writers = [Thread(target=write, args=(number,)) for number in range(2)]

    def pieces() -> Iterator[bytes]:
        yield bytes(6 << 20)
        for one in writers:
            one.start()
        while len(acknowledged) < 20:
            sleep(0.005)
        s3_bucket.server.kill()
        yield bytes(6 << 20)

    with pytest.raises(TransientError, match="layers/large, part"):
        store.put_stream("layers/large", pieces(), 12 << 20)
    for one in writers:
        one.join()
    s3_bucket.server.start()
    assert len(acknowledged) >= 20
    assert all(store.get(name) == data for name, data in acknowledged.items())
    assert list(store.list("layers/")) == []
    store.put_stream("layers/large", iter([bytes(6 << 20)] * 2), 12 << 20)
    assert store.get("layers/large") == bytes(12 << 20)
