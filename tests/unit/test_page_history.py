"""Long histories of one page end byte for byte as in PostgreSQL, what lies in its hole included.

`EXPECTED` holds the CRC-32 of the page after each history, computed by applying the same operations
with bufpage.c of PostgreSQL 18.6 (the same code in 15.18), compiled on its own.
"""

import array
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from formats import index_tuples, page


class Operation(NamedTuple):
    """What to do; `number` and `count` are made to fit the page when it is done."""

    kind: str
    number: int
    count: int
    content: bytes


def history(seed: int, kinds: list[str], steps: int) -> Iterator[Operation]:
    """Pseudo-random operations, the same on every version of Python."""
    state = seed

    def draw(limit: int) -> int:
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % limit

    for _ in range(steps):
        kind = kinds[draw(len(kinds))]
        content = bytes(draw(256) for _ in range(1 + draw(120)))
        yield Operation(kind, draw(1 << 16), draw(1 << 16), content)


def victims(operation: Operation, present: int) -> list[int]:
    """Line pointers to delete, in order: some, but not all of those present."""
    count = min(operation.count % 9, present)
    stride = max(1, present // max(count, 1))
    first = 1 + operation.number % stride
    return [first + stride * i for i in range(count) if first + stride * i <= present]


def do(view: memoryview, operation: Operation, is_heap: bool) -> None:
    present = page.max_offset(view)
    content = memoryview(operation.content)
    length = len(content)
    number = 1 + operation.number % (present + 1)
    if operation.kind == "add":
        page.add_item(view, content, 0, length, 0, False, is_heap)
    elif operation.kind == "add at":
        page.add_item(view, content, 0, length, number, False, is_heap)
    elif operation.kind == "fill":
        page.add_item(view, content, 0, length, number, True, is_heap)
    elif operation.kind == "repair":
        page.repair_fragmentation(view, True)
    elif operation.kind == "truncate":
        page.truncate_line_pointers(view)
    elif operation.kind == "delete":
        if number <= present:
            index_tuples.delete(view, number)
    elif operation.kind == "delete many":
        chosen = victims(operation, present)
        index_tuples.multi_delete(view, memoryview(array.array("H", chosen)), len(chosen))
    elif operation.kind == "overwrite":
        if number <= present:
            index_tuples.overwrite(view, number, content, 0, length)
    else:
        state, target = {"unuse": (0, 0), "kill": (3, 0), "redirect": (2, number)}[operation.kind]
        for n in victims(operation, present):
            page.set_item(view, n, target, state, 0)


HEAP = ["add"] * 9 + ["fill"] * 3 + ["unuse"] * 2 + ["kill", "redirect", "repair", "truncate"]
INDEX = ["add at"] * 12 + ["delete"] * 3 + ["delete many"] * 2 + ["overwrite"] * 3

EXPECTED = [
    (1, 4026863984),
    (2, 1676281024),
    (3, 1998766984),
    (4, 1041234907),
    (5, 3527197870),
    (6, 2136138958),
    (7, 1197081924),
    (8, 2347051718),
]


@pytest.mark.parametrize(("seed", "expected"), EXPECTED)
def test_a_long_history_ends_as_in_postgresql(seed: int, expected: int) -> None:
    is_heap = seed % 2 == 0
    view = memoryview(bytearray(8192))
    page.init(view, 0 if is_heap else 16)
    for operation in history(seed, HEAP if is_heap else INDEX, 400):
        do(view, operation, is_heap)
    assert zlib.crc32(view) == expected
