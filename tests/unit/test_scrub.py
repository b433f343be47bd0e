"""A backup is read back: what is wrong is found, what is right is not, and it is remembered."""

import json
import random
from pathlib import Path

import pytest

from engine import index_rebuild
from formats import scrub_result
from formats.bucket_state import pack_snapshot
from formats.errors import CorruptionError
from formats.scrub_result import ScrubResult
from server.backup import fetch
from server.backup.object_store import RefusedError, TransientError
from server.backup.restore import Silence
from server.backup.scrub import RESULTS_KEPT, ScrubReport, scrub
from tests.fixtures.bucket_shipping import Shipper, flip
from tests.fixtures.memory_bucket import Contents, Fault, MemoryBucket
from tests.fixtures.small_store import SMALL_POLICY, SmallStore, create, image
from tests.fixtures.store_history import RELATIONS


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A store, and a bucket with snapshots, entries, bundles and pieces of its journal."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.bucket = MemoryBucket(Contents(self.clock))
        self.small = SmallStore(directory)
        self.shipper = Shipper(self.bucket)
        self.small.put(create(RELATIONS[0]))
        for mark in range(20):
            self.small.put(image(mark % 3, mark, RELATIONS[0]))
            if mark % 5 == 0:
                self.small.flush()
            self.shipper.ship(self.small.store)
            self.shipper.chain.write_snapshot_if_worthwhile()
        self.small.put(*(image(block, 99, RELATIONS[0]) for block in range(3)))
        self.shipper.ship(self.small.store)

    def scrub(self) -> ScrubReport:
        return scrub(self.bucket, Silence(), sleep=lambda _: None)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)
    return World(tmp_path)


def kinds(bucket: MemoryBucket) -> set[str]:
    return {name.partition("/")[0] for name in bucket.objects}


def test_a_whole_backup_has_nothing_wrong(world: World) -> None:
    assert kinds(world.bucket) == {"manifest", "snapshot", "layers", "journal", "outlines"}
    before = dict(world.bucket.objects)
    report = world.scrub()
    assert report.problems == []
    assert (report.orphans, report.never_verified) == ([], [])
    rest = [name for name in before if name.startswith(("manifest/", "snapshot/", "outlines/"))]
    assert report.objects == len(report.state.objects()) + len(rest)
    assert set(report.verified) == set(report.state.objects())
    for name in before:  # the backup is as it was, and there is one object more
        assert world.bucket.objects[name] == before[name]
    assert len(world.bucket.objects) == len(before) + 1


def test_a_flipped_bit_in_any_object_is_found_in_just_this_object(world: World) -> None:
    generator = random.Random(7)
    for name in sorted(world.bucket.objects):
        if name.startswith("scrub/"):
            continue
        stored = world.bucket.objects[name]
        flip(world.bucket, name, generator.randrange(len(stored.data)))
        report = world.scrub()
        assert {problem.object for problem in report.problems} == {name}, name
        assert all(problem.what and problem.expected for problem in report.problems)
        world.bucket.objects[name] = stored
    assert world.scrub().problems == []


def test_every_flipped_bit_of_a_piece_of_the_journal_is_found(world: World) -> None:
    """Of a zstd frame as well, which has bits that mean nothing."""
    piece = world.shipper.chain.state.journal[-1]
    whole = fetch.wal_of(world.bucket, piece)
    assert len(whole) == piece.lsn_end - piece.lsn_start
    for at in range(8 * piece.bytes_stored):
        stored = world.bucket.objects[piece.name]
        data = bytearray(stored.data)
        data[at // 8] ^= 1 << at % 8
        world.bucket.objects[piece.name] = stored._replace(data=bytes(data))
        with pytest.raises(CorruptionError, match=piece.name):
            fetch.wal_of(world.bucket, piece)
        world.bucket.objects[piece.name] = stored


def test_an_object_that_is_missing_or_cut_off(world: World) -> None:
    for name in world.shipper.chain.state.objects():
        stored = world.bucket.objects.pop(name)
        report = world.scrub()
        assert [(p.object, p.found) for p in report.problems] == [(name, "none")]
        world.bucket.objects[name] = stored._replace(data=stored.data[:-1])
        (problem,) = world.scrub().problems
        assert (problem.what, problem.found) == ("size", f"{len(stored.data) - 1} bytes")
        assert problem.expected == f"{len(stored.data)} bytes"
        world.bucket.objects[name] = stored


def test_a_missing_entry(world: World) -> None:
    names = sorted(name for name in world.bucket.objects if name.startswith("manifest/"))
    del world.bucket.objects[names[-2]]
    (problem,) = world.scrub().problems
    assert (problem.object, problem.found) == (names[-2], "none")


def test_a_snapshot_that_says_something_else(world: World) -> None:
    snapshot = next(name for name in world.bucket.objects if name.startswith("snapshot/"))
    other = Shipper(MemoryBucket())
    for _ in range(int(snapshot.partition("/")[2], 16) - 1):
        other.chain.append()
    stored = world.bucket.objects[snapshot]
    world.bucket.objects[snapshot] = stored._replace(data=pack_snapshot(other.chain.state))
    assert snapshot in {problem.object for problem in world.scrub().problems}


def test_dead_objects_and_orphans_are_counted_and_are_no_problem(world: World) -> None:
    world.small.compact(SMALL_POLICY)
    world.shipper.ship(world.small.store)
    world.bucket.put("layers/00000009/what-is-this", b"nobody knows")
    world.bucket.put("journal/00000001/x", b"either")
    report = world.scrub()
    assert report.problems == []
    assert {info.name for info in report.dead} >= set(world.shipper.chain.state.dying)
    assert report.dead
    assert [info.name for info in report.orphans] == [
        "layers/00000009/what-is-this", "journal/00000001/x",
    ]  # fmt: skip


def test_what_was_verified_the_longest_ago_comes_first(world: World) -> None:
    names = world.shipper.chain.state.objects()
    first = world.scrub()
    assert set(first.verified.values()) == {1_800_000_000}
    world.clock.now += 1000
    seen: list[str] = []

    def interrupt(call: str, name: str) -> Fault | None:
        if call == "get" and name in names:
            seen.append(name)
            if len(seen) > 2:
                raise KeyboardInterrupt
        return None

    world.bucket.choose_fault = interrupt
    with pytest.raises(KeyboardInterrupt):
        world.scrub()
    world.bucket.choose_fault = lambda call, name: None
    world.clock.now += 1000
    order: list[str] = []
    world.bucket.pause = lambda where: order.append(where)
    third = world.scrub()
    read = [
        where.split()[1] for where in order if where.startswith("get ") and "answer" not in where
    ]
    read = [name for name in read if name in names]
    newest = json.loads(_newest(world, 1).partition(b"\n")[0])
    later = [name for name, seconds in newest["verified"].items() if seconds == 1_800_001_000]
    assert 0 < len(later) <= 4 and not newest["is_complete"]
    assert set(read[: len(names) - len(later)]).isdisjoint(later)
    assert set(third.verified.values()) == {1_800_002_000}


def _newest(world: World, before: int = 0) -> bytes:
    names = sorted(name for name in world.bucket.objects if name.startswith("scrub/"))
    return world.bucket.objects[names[-1 - before]].data


def test_results_do_not_pile_up(world: World) -> None:
    for _ in range(RESULTS_KEPT + 3):
        world.clock.now += 1
        world.scrub()
    assert sum(name.startswith("scrub/") for name in world.bucket.objects) == RESULTS_KEPT


def test_what_a_writer_deletes_meanwhile_is_no_problem(world: World) -> None:
    def move_on(where: str) -> None:
        if where.startswith("get layers/"):
            world.bucket.pause = lambda where: None
            world.small.compact(SMALL_POLICY)
            before = set(world.shipper.chain.state.objects())
            after = world.shipper.ship(world.small.store)
            world.bucket.delete(sorted(before - set(after.objects())))

    world.bucket.pause = move_on
    assert world.scrub().problems == []


def test_what_is_refused_of_one_object_is_said_and_the_others_are_read(world: World) -> None:
    """As where the key that it was encrypted with is gone."""
    names = [name for name in sorted(world.bucket.objects)
             if name.startswith(("layers/", "journal/", "outlines/"))]  # fmt: skip
    refused = {next(n for n in names if n.startswith(kind)) for kind in ("la", "jo", "ou")}

    def refuse(call: str, name: str) -> None:
        if call == "get" and name in refused:
            raise RefusedError(f"GET {name}: KMS.DisabledException")

    world.bucket.choose_fault = refuse
    report = world.scrub()
    assert {problem.object for problem in report.problems} == refused
    assert {problem.found for problem in report.problems} == {
        f"GET {name}: KMS.DisabledException" for name in refused
    }
    assert set(report.verified) == set(report.state.objects()) - refused


def test_a_store_that_refuses_everything_from_some_time_on(world: World) -> None:
    is_over = False

    def refuse(call: str, name: str) -> None:
        nonlocal is_over
        is_over = is_over or name.startswith("layers/")
        if call == "get" and is_over:
            raise RefusedError(f"GET {name}: InvalidAccessKeyId")

    world.bucket.choose_fault = refuse
    with pytest.raises(RefusedError):
        world.scrub()


def test_a_store_that_answers_nothing(world: World) -> None:
    world.bucket.choose_fault = lambda call, name: Fault.BEFORE
    with pytest.raises(TransientError):
        world.scrub()


def test_results_are_checked() -> None:
    result = ScrubResult(5, 6, 7, True, 0, {"layers/x": 5})
    data = scrub_result.pack(result)
    assert scrub_result.unpack(data, "scrub/x") == result
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 1
        with pytest.raises(CorruptionError):
            scrub_result.unpack(bytes(broken), "scrub/x")
    assert scrub_result.is_result_name(scrub_result.result_name(5, "00c0ffee"))
    assert not scrub_result.is_result_name("scrub/mine")


def test_who_may_only_read_scrubs_all_the_same(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(call: str, name: str) -> None:
        if call in ("put", "delete"):
            raise RefusedError(f"PUT {name}: AccessDenied")

    world.bucket.choose_fault = refuse
    assert world.scrub().problems == []
    assert "cannot be kept in the bucket: PUT scrub/" in caplog.text
    assert "scrub" not in kinds(world.bucket)
