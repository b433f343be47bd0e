"""Ranges of objects, many at the same time: what comes, what fails, and what is not asked for."""

import threading

from engine.errors import UnreachableError
from server.backup.bucket_files import PARALLEL_REQUESTS, BucketFiles
from tests.fixtures.memory_bucket import Fault, MemoryBucket

DATA = bytes(range(256))


def read_many(files: BucketFiles, ranges: list[tuple[str, int, int]]) -> list[bytes | OSError]:
    found: dict[int, bytes | OSError] = {}
    files.read_many(ranges, found.__setitem__)
    return [found[place] for place in range(len(ranges))]


def bucket_of(*names: str) -> MemoryBucket:
    bucket = MemoryBucket()
    for name in names:
        bucket.put(name, DATA)
    return bucket


def test_each_range_is_at_its_place_and_an_object_that_is_gone_fails_alone() -> None:
    files = BucketFiles(bucket_of("a", "b"))
    ranges = [("a", n, 3) if n % 3 else ("gone", n, 3) for n in range(50)]
    for place, found in enumerate(read_many(files, ranges)):
        if place % 3:
            assert found == DATA[place : place + 3]
        else:
            assert isinstance(found, FileNotFoundError)
            assert found.filename == "gone"


def test_as_many_as_may_be_are_asked_for_at_the_same_time() -> None:
    bucket = bucket_of("a")
    all_there = threading.Barrier(PARALLEL_REQUESTS)
    bucket.pause = lambda where: None if "answer" in where else all_there.wait(10)
    count = 2 * PARALLEL_REQUESTS
    assert read_many(BucketFiles(bucket), [("a", 0, 1)] * count) == [b"\0"] * count


def test_after_one_that_is_not_answered_the_rest_are_not_asked_for() -> None:
    """Or a bucket that is gone would be waited for again and again."""
    bucket = bucket_of("a")
    bucket.choose_fault = lambda call, name: Fault.BEFORE
    found = read_many(BucketFiles(bucket), [("a", 0, 1)] * 1000)
    assert all(isinstance(one, UnreachableError) for one in found)
    assert bucket.requests["get"] <= 2 * PARALLEL_REQUESTS
