"""Redo of generic records: fragments, and the zeros between pd_lower and pd_upper."""

import struct

import pytest

from engine.redo import generic
from tests.fixtures.redo_parts import make_part


def a_page(lower: int = 100, upper: int = 8000, special: int = 8184) -> bytearray:
    content = bytearray(b"\xaa" * 8192)
    struct.pack_into("<HHHH", content, 12, lower, upper, special, 8192 | 4)
    return content


def fragment(offset: int, content: bytes) -> bytes:
    return struct.pack("<HH", offset, len(content)) + content


@pytest.mark.parametrize("block_id", [0, 3])
def test_fragments_then_zeros(block_id: int) -> None:
    view = memoryview(a_page())
    data = fragment(12, b"\x70\0") + fragment(90, b"x" * 30) + fragment(8190, b"\1\2")
    assert generic.redo(make_part(view, 0, b"", data, {block_id: 5}, block_id)) == 1
    expected = a_page(lower=112)
    expected[90:112] = b"x" * 22
    expected[112:8000] = bytes(7888)
    expected[8190:] = b"\1\2"
    assert bytes(view) == bytes(expected)


@pytest.mark.parametrize(("lower", "upper"), [(100, 100), (100, 101), (0, 8192)])
def test_only_zeros(lower: int, upper: int) -> None:
    view = memoryview(a_page(lower, upper))
    assert generic.redo(make_part(view, 0, b"", b"")) == 1
    expected = a_page(lower, upper)
    expected[lower:upper] = bytes(upper - lower)
    assert bytes(view) == bytes(expected)


def test_an_empty_fragment() -> None:
    view = memoryview(a_page(100, 100))
    generic.redo(make_part(view, 0, b"", fragment(8192, b"") + fragment(8191, b"\1")))
    assert bytes(view) == bytes(a_page(100, 100)[:-1]) + b"\1"


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"\0\0\0",
        fragment(90, b"abc")[:-1],
        fragment(90, b"abc") + b"\0",
        fragment(8191, b"ab"),
        fragment(0xFFFF, b""),
    ],
)
def test_a_fragment_that_does_not_fit_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="fragment"):
        generic.redo(make_part(memoryview(a_page()), 0, b"", data))


@pytest.mark.parametrize(("lower", "upper"), [(101, 100), (100, 8193), (0xFFFF, 0xFFFF)])
def test_a_page_out_of_order_is_refused(lower: int, upper: int) -> None:
    data = fragment(12, struct.pack("<HH", lower, upper))
    with pytest.raises(ValueError, match="out of order"):
        generic.redo(make_part(memoryview(a_page()), 0, b"", data))


@pytest.mark.parametrize("info", [0x10, 0xF0])
def test_unknown_opcode_is_refused(info: int) -> None:
    with pytest.raises(ValueError, match="unknown opcode"):
        generic.redo(make_part(memoryview(a_page()), info, b""))
