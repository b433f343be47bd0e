"""Effects on SLRU pages, byte for byte; map pages are test_redo_heap2's."""

import pytest

from engine.redo import effect
from formats import version


def apply(page, effect_class, items):
    payload = version.effect(effect_class, items)
    effect.apply(memoryview(page), memoryview(payload), 0, len(payload))
    return page


def test_transaction_status_sets_two_bits_and_no_others():
    page = bytearray(b"\xff" * 8192)
    apply(page, version.CLOG_SET, [(5, 1, 0), (32767, 2, 0)])
    assert page[1] == 0b11110111
    assert page[8191] == 0b10111111
    assert page.count(0xFF) == 8190


def test_multixact_offset_is_a_u32_at_its_index():
    page = apply(bytearray(8192), version.MULTIXACT_OFFSET, [(0, 0, 1), (2047, 0, 0xFFFFFFFF)])
    assert page[:4] == b"\x01\0\0\0"
    assert page[8188:] == b"\xff\xff\xff\xff"


def test_multixact_member_lies_in_a_group_of_four():
    page = apply(bytearray(8192), version.MULTIXACT_MEMBER, [(6, 5, 0xAABBCCDD)])
    assert page[20:40] == b"\0\0\x05\0" + bytes(8) + b"\xdd\xcc\xbb\xaa" + bytes(4)


@pytest.mark.parametrize(
    "payload",
    [
        bytes([16, 3, 2, 0]) + bytes(8),  # two items announced, one there
        bytes([16, 9, 1, 0]) + bytes(8),  # no such class
        bytes([16, 4, 1, 0, 0, 8]) + bytes(6),  # index past the page
    ],
)
def test_malformed_effects_are_refused(payload):
    with pytest.raises((ValueError, IndexError)):
        effect.apply(memoryview(bytearray(8192)), memoryview(payload), 0, len(payload))
