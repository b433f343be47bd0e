"""The ObjectStore on S3, against a real S3 server."""

import pytest

from server.backup.object_store import NotThereError, TakenError
from server.backup.s3_store import S3Store, probe
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
