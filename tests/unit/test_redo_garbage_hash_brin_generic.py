"""Hash, BRIN and generic records and pages with random damage: an error or a page, never a crash.

Whatever happens, nothing but the page that was given may change: it stands amid other bytes.
"""

import random
import struct
from collections.abc import Callable
from typing import NamedTuple

import pytest

from engine.redo import brin, generic, hash_index
from engine.redo.part import Part
from formats import page
from tests.fixtures import hash_parts
from tests.fixtures.hash_parts import BLOCKS, bitmap_page, bucket_page, entry, meta_page
from tests.fixtures.redo_parts import make_part

AROUND = b"\xc3" * 64


class Case(NamedTuple):
    """A page and a record that fits it."""

    redo: Callable[[Part], int]
    content: bytes
    info: int
    main: bytes = b""
    data: bytes = b""
    block_id: int = 0


def hash_cases() -> list[Case]:
    bucket = bytes(bucket_page(*[entry(n) for n in range(9)]))
    meta = bytes(meta_page(7.0, bitmaps=(5,)))
    bitmap = bitmap_page()
    tuples = struct.pack("<HH", 2, 11) + entry(40) + entry(50, 24)
    numbers = struct.pack("<4H", 1, 4, 5, 9)
    squeeze = struct.pack("<IIHBB", 3, 4, 2, 1, 1)
    vacuum = struct.pack("<IHBx", 700, 4, 0) + numbers
    split = struct.pack("<IHHB", 9, 34, 18, 3)
    h = hash_parts
    return [
        Case(hash_index.redo, content, info, main, data, block_id)
        for content, info, main, data, block_id in (
            (bucket, h.INIT_META, struct.pack("<dIH", 5e4, 450, 40), b"", 0),
            (bucket, h.INIT_BITMAP, b"\0\x10", b"", 0),
            (meta, h.INIT_BITMAP, b"\0\x10", b"", 1),
            (bucket, h.INSERT, b"\3\0", entry(9), 0),
            (meta, h.INSERT, b"\3\0", b"", 1),
            (bucket, h.ADD_OVERFLOW, h.EXTENDED, bytes(4), 0),
            (bucket, h.ADD_OVERFLOW, h.EXTENDED, b"", 1),
            (bitmap, h.ADD_OVERFLOW, h.FOUND, b"\xff\x0f\0\0", 2),
            (bucket, h.ADD_OVERFLOW, h.EXTENDED, b"", 3),
            (meta, h.ADD_OVERFLOW, h.EXTENDED, bytes(4), 4),
            (bucket, h.SPLIT_ALLOCATE, split, b"", 0),
            (bucket, h.SPLIT_ALLOCATE, split, b"", 1),
            (meta, h.SPLIT_ALLOCATE, split, struct.pack("<4I", 7, 15, 4, 8), 2),
            (bucket, h.SPLIT_COMPLETE, struct.pack("<HH", 66, 2), b"", 1),
            (bucket, h.MOVE, struct.pack("<HB", 2, 1), tuples, 1),
            (bucket, h.MOVE, struct.pack("<HB", 2, 1), numbers, 2),
            (bucket, h.SQUEEZE, squeeze, tuples, 1),
            (bucket, h.SQUEEZE, squeeze, b"", 2),
            (bucket, h.SQUEEZE, squeeze[:-1] + b"\0", b"", 3),
            (bucket, h.SQUEEZE, squeeze, b"", 4),
            (bitmap, h.SQUEEZE, squeeze, b"\7\0\0\0", 5),
            (meta, h.SQUEEZE, squeeze, b"\7\0\0\0", 6),
            (bucket, h.DELETE, b"\1\1", numbers, 1),
            (bucket, h.SPLIT_CLEANUP, b"", b"", 0),
            (meta, h.UPDATE_META, bytes(8), b"", 0),
            (bucket, h.VACUUM_ONE_PAGE, vacuum, b"", 0),
            (meta, h.VACUUM_ONE_PAGE, vacuum, b"", 1),
        )
    ]


def brin_page(kind: int, summaries: int = 0) -> bytes:
    view = memoryview(bytearray(8192))
    page.init(view, 8)
    view[8190:] = kind.to_bytes(2, "little")
    for n in range(summaries):
        summary = memoryview(bytes([n]) * (20 + n))
        page.add_item(view, summary, 0, 20 + n, 0, False, False)
    return bytes(view)


def brin_cases() -> list[Case]:
    meta, revmap, regular = brin_page(0xF091), brin_page(0xF092), brin_page(0xF093, 9)
    insertion = struct.pack("<IIH", 5000, 3, 10)
    update = struct.pack("<HH", 4, 0) + insertion
    gone = struct.pack("<IIH", 3, 5000, 5)
    return [
        Case(brin.redo, content, info, main, data, block_id)
        for content, info, main, data, block_id in (
            (regular, 0x00, struct.pack("<IH", 128, 1), b"", 0),
            (regular, 0x10, insertion, b"s" * 29, 0),
            (revmap, 0x10, insertion, b"", 1),
            (regular, 0x90, insertion[:-2] + b"\1\0", b"s" * 29, 0),
            (regular, 0x20, update, b"s" * 29, 0),
            (revmap, 0x20, update, b"", 1),
            (regular, 0x20, update, b"", 2),
            (regular, 0x30, b"\5\0", b"t" * 41, 0),
            (meta, 0x40, b"\4\0\0\0", b"", 0),
            (meta, 0x40, b"\4\0\0\0", b"", 1),
            (revmap, 0x50, gone, b"", 0),
            (regular, 0x50, gone, b"", 1),
        )
    ]


def generic_cases() -> list[Case]:
    fragments = struct.pack("<HHI", 12, 4, 0x1E000100) + struct.pack("<HH", 7000, 9) + b"fragments"
    return [Case(generic.redo, brin_page(0xFF83, 9), 0, b"", fragments)]


CASES = [*hash_cases(), *brin_cases(), *generic_cases()]


def attempt(case: Case, version: int) -> bool:
    """Redo in a page amid other bytes; whether it was done. Only two kinds of error may be."""
    memory = bytearray(AROUND + case.content + AROUND)
    view = memoryview(memory)[64 : 64 + 8192]
    part = make_part(view, case.info, case.main, case.data, BLOCKS, case.block_id, version=version)
    try:
        assert case.redo(part) in (0, 1)
    except (ValueError, IndexError):
        return False
    finally:
        assert memory[:64] == memory[-64:] == AROUND
    return True


def damage(choice: random.Random, content: bytes, hot: list[int]) -> bytes:
    changed = bytearray(content)
    for _ in range(choice.randint(0, 3)):
        if changed:
            at = choice.choice([choice.randrange(len(changed)), *hot])
            changed[at] = choice.choice([0, 1, 0x7F, 0x80, 0xFF, choice.randrange(256)])
    if not hot and choice.random() < 0.1:
        del changed[choice.randrange(len(changed) + 1) :]
    return bytes(changed)


@pytest.mark.parametrize("case", CASES, ids=[f"{c.info:02x}-{c.block_id}" for c in CASES])
def test_damage_gives_an_error_or_a_page(case: Case) -> None:
    choice = random.Random(repr(case))
    header_and_end = [*range(10, 80), *range(8176, 8192)]
    assert attempt(case, 18)
    for _ in range(300):
        attempt(
            case._replace(
                content=damage(choice, case.content, header_and_end),
                main=damage(choice, case.main, []),
                data=damage(choice, case.data, []),
                info=case.info if choice.random() < 0.95 else choice.randrange(256),
                block_id=case.block_id if choice.random() < 0.9 else choice.randrange(8),
            ),
            choice.choice([14, 15, 16, 17, 18]),
        )


@pytest.mark.parametrize("redo", [hash_index.redo, brin.redo, generic.redo])
def test_noise_gives_an_error_or_a_page(redo: Callable[[Part], int]) -> None:
    choice = random.Random(7)
    for _ in range(600):
        content = bytearray(choice.randbytes(8192))
        content[12:20] = struct.pack("<HHHH", 24 + 4 * choice.randrange(99), 7000, 8176, 8196)
        content[8190:] = choice.choice([b"\x80\xff", b"\x91\xf0", b"\x92\xf0", b"\x93\xf0"])
        if content[8191] == 0xF0:
            content[16] = 0xF8  # 8184
        case = Case(
            redo,
            bytes(content),
            choice.randrange(256),
            choice.randbytes(choice.randrange(40)),
            choice.randbytes(choice.randrange(90)),
            choice.randrange(8),
        )
        attempt(case, choice.choice([15, 18]))
