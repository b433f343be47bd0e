"""One flipped bit in any page of LMDB's file: refused with the remedy, or no answer is another.

A test run takes a sample of the bits. `make index-flips FLIPS=n` takes n of them in each test.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from engine import index_rebuild
from formats.chunk import ChunkKey
from tests.fixtures import bundles
from tests.fixtures.fork_server import ForkServer
from tests.fixtures.index_flips import flip
from tests.fixtures.stopped_directory import STRIPE, StoppedDirectory

FLIPS = int(os.environ.get("INDEX_FLIPS", "150"))
PAGE_BYTES = 4096  # LMDB's, here
BUSY_BYTES = 96  # of a page: its header, and where its nodes are
BUNDLES = 10
NEXT = bundles.image_bundle(BUNDLES + 1)


class Subject(NamedTuple):
    root: Path
    whole: bytes  # data.mdb

    def flipped(self, position: int, bit: int) -> None:
        (self.root / "index" / "data.mdb").write_bytes(self.whole)
        flip(self.root / "index" / "data.mdb", position, bit)


def versions(number: int, random: Random) -> list[tuple[bytes, int, int, bytes]]:
    """Of a few hundred relations, so that there are branch pages."""
    found = []
    for relation in sorted(random.sample(range(16384, 16464), 40)):
        key, lsn = ChunkKey(1, 1663, 5, relation, 0, 0), 100 * number
        state = bundles.history(True, random.randrange(1, 100))
        found.append((key.history().pack(), 0, lsn, state))
        for stripe in random.sample(range(8), 2):
            found.append((key.pack(), stripe * STRIPE, lsn, bundles.record(b"1")))
    return found


@pytest.fixture
def subject(fast_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    with monkeypatch.context() as patch:
        patch.setattr(index_rebuild, "check_in_child", lambda path: True)
        directory = StoppedDirectory(fast_directory / "pages")
        random = Random(7)
        for number in range(1, BUNDLES + 1):
            name = bundles.l0(number) if number % 3 else bundles.image_bundle(number)
            directory.flush(name, versions(number, random))
        bundles.write(directory.layers, NEXT, versions(BUNDLES + 1, random))
        directory.index.close()
        yield Subject(directory.root, (directory.root / "index" / "data.mdb").read_bytes())


def flips(subject: Subject, seed: int) -> Iterator[tuple[int, int]]:
    """(byte, bit), in all pages; every other one in the head of its page."""
    random, pages = Random(seed), len(subject.whole) // PAGE_BYTES
    for number in range(FLIPS):
        page = number % pages if number < pages else random.randrange(pages)
        offset = random.randrange(BUSY_BYTES if random.random() < 0.5 else PAGE_BYTES)
        yield page * PAGE_BYTES + offset, random.randrange(8)


def test_a_flip_before_a_start_is_refused_or_changes_nothing(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, outcomes = subject.root / "index" / "data.mdb", Counter()
    with ForkServer("tests.fixtures.index_flips") as server:
        whole = server.call("open_and_go_on", subject.root, NEXT.text)
        assert whole.status == 0
        before, after = whole.told
        assert before != after
        for position, bit in flips(subject, 1):
            subject.flipped(position, bit)
            status, told = server.call("open_and_go_on", subject.root, NEXT.text)
            where = f"byte {position}, bit {bit}"
            first = told[0] if told else "died"
            outcomes["same" if first == before else first] += 1
            if first == before:
                assert told[1:] in ([after], ["refused"], []), where
            else:
                assert first == "refused" or status < 0, where
    assert outcomes["refused"] > FLIPS // 20
    assert outcomes["same"] > FLIPS // 20
    data.write_bytes(subject.whole)


def test_a_flip_in_a_running_server_is_refused_or_changes_nothing(subject: Subject) -> None:
    partly = 0
    with ForkServer("tests.fixtures.index_flips") as server:
        before, after = server.call("rot_while_open", subject.root, -1, 0, NEXT.text).told
        for position, bit in flips(subject, 2):
            (subject.root / "index" / "data.mdb").write_bytes(subject.whole)
            status, told = server.call("rot_while_open", subject.root, position, bit, NEXT.text)
            assert status <= 0, f"byte {position}, bit {bit}"
            for right, found in zip((before, after), told, strict=False):
                where = f"byte {position}, bit {bit}"
                assert found.items() <= right.items(), where
                partly += 0 < len(found) < len(right)
    assert partly > 0
