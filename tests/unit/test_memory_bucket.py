"""The bucket in memory does what a store may do, and what a network does to its answers."""

import pytest

from server.backup.object_store import NotThereError, TakenError, TransientError
from tests.fixtures.memory_bucket import Contents, Fault, MemoryBucket


def names(bucket: MemoryBucket, prefix: str = "", after: str = "") -> list[str]:
    return [info.name for info in bucket.list(prefix, after)]


def test_objects() -> None:
    clock = [5.0]
    bucket = MemoryBucket(Contents(lambda: clock[0]))
    bucket.put("a/1", b"0123456789")
    bucket.put_stream("a/2", iter([b"01", b"2"]), 3)
    bucket.put_new("b", b"new")
    with pytest.raises(TakenError):
        bucket.put_new("b", b"again")
    assert bucket.get("a/1") == b"".join(bucket.get_stream("a/1")) == b"0123456789"
    assert bucket.get("a/1", 3, 4) == b"3456"
    assert bucket.get("a/1", 8, 4) == b"89"
    clock[0] = 9.0
    assert bucket.now() == 5.0, "as its last answer had it"
    assert [tuple(info) for info in bucket.list("a/")] == [("a/1", 10, 5.0), ("a/2", 3, 5.0)]
    assert bucket.now() == 9.0
    bucket.delete(["a/1", "never there"])
    with pytest.raises(NotThereError):
        bucket.get("a/1")
    assert (bucket.bytes_sent, bucket.bytes_received) == (10 + 3 + 3 + 5, 10 + 10 + 4 + 2)


def test_a_listing_in_pages_is_as_the_bucket_is_then() -> None:
    bucket = MemoryBucket(page=2)
    for name in "acegik":
        bucket.put(name, b"")
    listing = bucket.list("")
    assert next(listing).name == "a"
    bucket.delete(["c", "g"])
    bucket.put("h", b"")
    assert [info.name for info in listing] == ["c", "e", "h", "i", "k"]
    assert names(bucket, after="h") == ["i", "k"]
    assert names(bucket, "e") == ["e"]


@pytest.mark.parametrize(
    ("fault", "at_once", "in_the_end"),
    [(Fault.BEFORE, False, False), (Fault.AFTER, True, True), (Fault.LATE, False, True)],
)
def test_faults(fault: Fault, at_once: bool, in_the_end: bool) -> None:
    bucket = MemoryBucket()
    for call in (bucket.put, bucket.put_new):
        bucket.fail(call.__name__, fault)
        with pytest.raises(TransientError):
            call(call.__name__, b"data")
        assert (call.__name__ in bucket.objects) == at_once
    bucket.put("old", b"")
    bucket.fail("delete", fault)
    with pytest.raises(TransientError):
        bucket.delete(["old"])
    assert ("old" not in bucket.objects) == at_once
    while bucket.contents.late:
        bucket.contents.deliver_late()
    assert names(bucket) == (["put", "put_new"] if in_the_end else ["old"])
    bucket.fail("get", fault, name="x")
    with pytest.raises(NotThereError):
        bucket.get("other")
    with pytest.raises(TransientError):
        bucket.get("x")


def test_a_request_that_arrives_twice() -> None:
    bucket = MemoryBucket()
    bucket.put("a", b"")
    bucket.fail("delete", Fault.TWICE)
    bucket.delete(["a"])
    bucket.put("a", b"")
    bucket.contents.deliver_late()
    assert names(bucket) == []
    bucket.fail("put_new", Fault.TWICE)
    bucket.put_new("b", b"one")
    bucket.delete(["b"])
    bucket.contents.deliver_late()
    assert names(bucket) == ["b"]
    assert not bucket.contents.twice
    bucket.put("b", b"other")
    assert bucket.contents.twice == {"b"}


def test_a_short_read() -> None:
    bucket = MemoryBucket()
    bucket.put("a", b"0123456789")
    bucket.fail("get", Fault.SHORT)
    assert (bucket.get("a"), bucket.get("a")) == (b"01234", b"0123456789")
