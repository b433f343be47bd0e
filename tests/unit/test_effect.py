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


def commit_timestamp(*indexes):
    return [(0, 0x0102, 0x0A0B0C0D), (0, 0, 0x11223344), *((index, 0, 0) for index in indexes)]


def test_commit_timestamp_is_written_for_each_transaction():
    page = bytearray(b"\xee" * 8192)
    apply(page, version.COMMIT_TIMESTAMP, commit_timestamp(3, 818))
    entry = bytes.fromhex("0d0c0b0a 44332211 0201")
    assert page[30:40] == entry
    assert page[8180:8190] == entry
    assert page[:30] == b"\xee" * 30
    assert page[40:8180] == b"\xee" * 8140
    assert page[8190:] == b"\xee" * 2


def test_commit_timestamp_of_no_transaction_changes_nothing():
    page = apply(bytearray(8192), version.COMMIT_TIMESTAMP, commit_timestamp())
    assert not any(page)


@pytest.mark.parametrize("count", [0, 1])
def test_commit_without_its_time_is_refused(count):
    payload = version.effect(version.COMMIT_TIMESTAMP, commit_timestamp()[:count])
    # Items lie behind it that are not its own.
    with pytest.raises(ValueError, match="without its time"):
        effect.apply(memoryview(bytearray(8192)), memoryview(payload + bytes(40)), 0, len(payload))


def test_items_are_applied_in_order_to_the_map():
    page = bytearray(b"\xff" * 8192)
    apply(page, version.VM_CLEAR, [(0, 3, 0), (5, 2, 0)])
    assert (page[24], page[25]) == (0b11111100, 0b11110111)
    apply(page, version.VM_TRUNCATE, [(9, 9, 6)])
    assert page[25] == 0b0111
    assert not any(page[26:])


def test_an_effect_starts_where_it_is_said_to():
    payload = version.effect(version.CLOG_SET, [(1, 3, 0)])
    page = bytearray(8192)
    assert effect.apply(memoryview(page), memoryview(b"\xee" * 3 + payload), 3, len(payload)) == 0
    assert page[0] == 0b1100


@pytest.mark.parametrize("longer", [-1, 1, 8])
def test_an_effect_of_another_length_than_that_of_its_items_is_refused(longer):
    payload = version.effect(version.CLOG_SET, [(1, 3, 0)])
    with pytest.raises(ValueError, match="length"):
        effect.apply(memoryview(bytearray(8192)), memoryview(payload + bytes(8)), 0, 12 + longer)


def test_no_more_than_its_bits_are_taken_of_a_status():
    page = apply(bytearray(8192), version.CLOG_SET, [(1, 0xFF, 0)])
    assert page[:2] == b"\x0c\0"


def test_every_place_of_a_group_of_multixact_members():
    items = [(4 + i, 0x11 + i, 0xA0A0A0A0 + i) for i in range(4)]
    page = apply(bytearray(8192), version.MULTIXACT_MEMBER, items)
    xids = b"".join(bytes([0xA0 + i, 0xA0, 0xA0, 0xA0]) for i in range(4))
    assert page[20:40] == b"\x11\x12\x13\x14" + xids
    assert not any(page[:20]) and not any(page[40:])
