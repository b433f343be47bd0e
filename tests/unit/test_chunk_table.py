"""Chunk numbers: the same key gets the same number, growing loses none, segments share a root."""

import pytest

from engine.chunk_table import ChunkTable


def test_numbers_survive_growth():
    table = ChunkTable()
    keys = [(1, 1663, 5, rel, fork, 0) for rel in range(3000) for fork in (0, 2)]
    numbers = [table.intern(*key) for key in keys]
    assert len(set(numbers)) == len(keys)
    assert [table.find(*key) for key in keys] == numbers
    assert [table.key(number) for number in numbers] == keys
    assert table.find(1, 1663, 5, 3001, 0, 0) == -1


def test_widest_fields_are_kept_whole():
    table = ChunkTable()
    key = (1, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD, 3, 32767)
    assert table.key(table.intern(*key)) == key
    assert table.find(1, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD, 3, 32766) == -1


def test_segments_of_a_relation_share_root_and_history():
    table = ChunkTable()
    third = table.intern(1, 1663, 5, 16384, 0, 3)
    root = table.root[third]
    assert table.key(root) == (1, 1663, 5, 16384, 0, 0)
    assert table.key(table.history[root]) == (0x81, 1663, 5, 16384, 0, 0)
    segment = table.intern(2, 0, 0, 0, 0, 7)
    assert table.root[segment] == segment
    assert table.key(table.history[segment]) == (0x82, 0, 0, 0, 0, 7)


def test_filter_is_asked_for_relations_and_slru_segments_only():
    asked = []

    def is_held(*key):
        asked.append(key)
        return False

    table = ChunkTable(is_held)
    relation = table.intern(1, 1663, 5, 16384, 0, 0)
    file = table.intern(3, 1663, 5, 4, 0, 0)
    assert not table.held[relation]
    assert table.held[file]
    assert table.held[table.history[relation]]
    assert asked == [(1, 1663, 5, 16384, 0, 0)]


def test_number_that_was_never_given():
    with pytest.raises(IndexError):
        ChunkTable().key(0)
