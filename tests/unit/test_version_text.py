"""Versions of pages in words."""

import random
import struct
import time
from collections.abc import Iterator

import pytest

from formats import version
from formats.rmgr import GIN, HEAP, HEAP2
from tools.version_text import VersionText, describe_version


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def record(
    manager: int,
    info: int,
    main: bytes,
    data: bytes = b"",
    block: int = 0,
    references: dict[int, int] | None = None,
    flags: int = 0,
) -> bytes:
    """The part of transaction 700's record for reference `block`."""
    references = {0: 5} if references is None else references
    head = struct.pack(
        "<6BHII", version.RECORD, manager, info, block, len(references), flags, len(data), 700,
        len(main),
    )  # fmt: skip
    numbers = b"".join(struct.pack("<BI", *reference) for reference in references.items())
    return head + numbers + main + data


def test_a_time() -> None:
    said = "2000-01-01 00:00:01.5+00: a transaction ended, record of 40 bytes"
    assert describe_version(version.commit_time(40, 1_500_000), 18) == VersionText("time", said)
    said = "2000-01-01 00:00:01+00: checkpoint"
    assert describe_version(version.commit_time(0, 1_000_000), 18) == VersionText("time", said)


def test_a_record() -> None:
    insert = struct.pack("<HB", 3, 8)
    flags = version.FLAG_INIT | version.FLAG_HINT_BITS_LOGGED
    assert describe_version(record(HEAP, 0x80, insert, b"tuple", flags=flags), 18) == VersionText(
        "Heap/INSERT+INIT", "off: 3, flags: 0x08", 700, 0, "init hints"
    )
    assert describe_version(record(HEAP, 0x00, insert, b"tuple"), 15) == VersionText(
        "Heap/INSERT", "off 3 flags 0x08", 700, 0
    )


def test_a_record_with_data_of_its_own_block_and_of_another() -> None:
    prune, unused = struct.pack("<BB", 0, 0x80), struct.pack("<HHH", 2, 4, 5)
    assert describe_version(record(HEAP2, 0x30, prune, unused), 17).description == (
        ", isCatalogRel: F, nplans: 0, nredirected: 0, ndead: 0, nunused: 2, unused: [4, 5]"
    )
    main = struct.pack("<5H", 0, 0, 1, 0, 2)
    child = record(GIN, 0x20, main, b"", block=1, references={0: 5, 1: 6})
    assert describe_version(child, 17) == VersionText(
        "Gin/INSERT", "isdata: F isleaf: F children: 1/2", 700, 1
    )


def test_images() -> None:
    page = struct.pack("<II", 2, 0xAB) + bytes(92)
    image = bytes([version.IMAGE_FUZZY, 0]) + struct.pack("<HH", 100, 8092) + page
    assert describe_version(image, 18) == VersionText(
        "fuzzy image", "100 bytes, hole 100..8192, pd_lsn 2/AB"
    )
    slru = version.image_exact(bytes(8192))
    assert describe_version(slru, 18, has_pages=False) == VersionText(
        "exact image", "8192 bytes, hole 0..0"
    )


@pytest.mark.parametrize(
    ("effect", "items", "kind", "description"),
    [
        (version.VM_CLEAR, [(5, 3, 0), (6, 2, 0)], "map bits",
         "heap block 5 not all-visible and all-frozen, heap block 6 not all-frozen"),
        (version.VM_TRUNCATE, [(0, 0, 77)], "map truncation", "77 heap blocks are left"),
        (version.CLOG_SET, [(5, 1, 0), (9, 2, 0)], "status",
         "transaction 5 committed, transaction 9 aborted"),
        (version.CLOG_SET, [(5, 1, 0)] * 40, "status",
         ", ".join(["transaction 5 committed"] * 32) + ", and 8 more"),
        (version.MULTIXACT_OFFSET, [(5, 0, 900)], "multixact offsets", "multixact 5 at 900"),
        (version.MULTIXACT_MEMBER, [(5, 4, 700)], "multixact members",
         "member 5 is 700 (nokeyupd)"),
        (version.COMMIT_TIMESTAMP, [(0, 3, 1_500_000), (0, 0, 0), (5, 0, 0), (6, 0, 0)],
         "commit time", "5, 6 committed at 2000-01-01 00:00:01.500000 UTC, origin 3"),
    ],
)  # fmt: skip
def test_effects(
    effect: int, items: list[tuple[int, int, int]], kind: str, description: str
) -> None:
    found = describe_version(version.effect(effect, items), 18, has_pages=False)
    assert found == VersionText(f"effect: {kind}", description)


def test_the_others() -> None:
    history = version.history_word(True, 49153).to_bytes(8, "little")
    assert describe_version(history, 18) == VersionText("history", "exists, 49153 blocks")
    dropped = version.history_word(False, 0).to_bytes(8, "little")
    assert describe_version(dropped, 18) == VersionText("history", "dropped")
    assert describe_version(version.file_block(512, b"x"), 18) == VersionText(
        "file", "block of a file of 512 bytes"
    )
    unreadable = bytes([version.UNREADABLE, 200, 0x10, 0])
    assert describe_version(unreadable, 18) == VersionText(
        "unreadable", "from here on, by custom200/UNKNOWN (10)"
    )
    torn = bytes([version.UNREADABLE, version.TORN, 0, 0])
    assert describe_version(torn, 18) == VersionText("unreadable", "torn in the base backup")


def test_garbage_is_described_as_such() -> None:
    choice = random.Random(3)
    kinds = [0, 1, 2, 3, 4, 8, 8, 8, 16, 16, 32, 64, 99]
    for _ in range(5000):
        payload = bytearray(choice.randbytes(choice.choice([0, 3, 8, 20, 60])))
        if payload:
            payload[0] = choice.choice(kinds)
        if len(payload) > 20 and choice.random() < 0.9:  # lengths that are not all absurd
            payload[4] &= 1
            payload[6:8] = payload[13:16] = b"\0\0"
        said = describe_version(bytes(payload), choice.choice([14, 16, 18]))
        assert len(said.kind) > 0 and len(said.description) < 400 + 12 * len(payload)
    assert describe_version(b"\x08", 18) == VersionText(
        "kind 8", "malformed: version of 1 bytes ends inside of the 16 at 0"
    )
    assert describe_version(b"", 18) == VersionText("kind 0", "malformed: no such kind")
