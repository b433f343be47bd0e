"""Where a read looks and what it refuses: sizes and lives of relations, foreign segments."""

import pytest

from engine import index_rebuild
from formats.chunk import relation as relation_key
from tests.fixtures.small_store import (
    REL,
    SmallStore,
    create,
    drop,
    heap_page,
    image,
    truncate,
)

SEGMENT = 131072


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def test_a_base_backup_and_an_image_over_it(tmp_path):
    small = SmallStore(tmp_path, [(relation_key(*REL, 0), [heap_page(1), heap_page(2)])])
    end = small.put(image(0, 10))
    for _ in range(2):
        assert [small.mark(0, end), small.mark(1, end), small.mark(0, end - 1)] == [10, 2, 1]
        small.flush()
        small.reopen()


def test_the_second_segment_is_there_after_a_start(tmp_path):
    """The relation's size is known by its first segment alone."""
    small = SmallStore(tmp_path)
    end = small.put(create(), image(0, 10), image(SEGMENT + 5, 11))
    assert small.mark(SEGMENT + 5, end) == 11
    small.flush()
    small.reopen()
    assert small.mark(SEGMENT + 5, end) == 11
    assert small.mark(SEGMENT + 5, end) == 11
    assert small.page(SEGMENT + 4, end) == bytes(8192)
    with pytest.raises(LookupError, match="past its end"):
        small.page(SEGMENT + 6, end)


@pytest.mark.parametrize("reopened", [False, True])
def test_what_was_not_there_in_the_past_is_refused(tmp_path, reopened):
    """Not answered with whatever the reply buffer holds."""
    small = SmallStore(tmp_path)
    before = small.put(create((1663, 5, 1)))
    created = small.put(create())
    short = small.put(image(0, 10))
    long = small.put(image(3, 11))
    cut = small.put(truncate(2))
    gone = small.put(drop(REL))
    if reopened:
        small.flush()
        small.reopen()
    for block, lsn, reason in [
        (0, before, "no main fork"), (0, created, "past its end"), (3, short, "past its end"),
        (3, cut, "past its end"), (0, gone, "no main fork"),
    ]:  # fmt: skip
        with pytest.raises(LookupError, match=reason):
            small.page(block, lsn)
    assert [small.mark(0, short), small.mark(3, long), small.mark(0, cut)] == [10, 11, 10]


def test_a_foreign_segment_is_refused_at_every_lsn(tmp_path):
    small = SmallStore(tmp_path, chunks="rel:*/*/*/main/0")
    first = small.put(create(), image(0, 10), image(SEGMENT + 5, 11))
    last = small.put(image(SEGMENT + 6, 12))
    for _ in range(2):
        for lsn in (first, last):
            assert small.mark(0, lsn) == 10
            with pytest.raises(LookupError, match="does not hold"):
                small.page(SEGMENT + 5, lsn)
        small.flush()
        small.reopen()
