"""What a batch of reads asks of a bucket: all that it needs at once, and nothing below an image."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.block_cache import BLOCK_BYTES
from engine.layer_query import LayerQuery
from engine.lazy_storage import LazyStorage
from engine.version_set import VersionSet
from formats.chunk import relation as relation_key
from tests.fixtures.lazy_store import forget, forget_frames, forget_pages
from tests.fixtures.remote_files import MemoryFiles, take_away
from tests.fixtures.small_store import REL, SMALL_POLICY, SmallStore, create, image, insert
from tools.bench.page_batches import Page, read_together

BLOCKS = 12
FLUSHES = 6


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


class Deep:
    """Pages that have a record in each of many bundles, above an image; all of it is away."""

    def __init__(self, directory: Path, cache_blocks: int, *, with_image: bool) -> None:
        directory.mkdir()
        small = SmallStore(directory)
        small.put(create(REL), *(image(block, block) for block in range(BLOCKS)))
        small.flush()
        for number in range(1, FLUSHES):
            if with_image and number == FLUSHES - 2:
                small.compact(SMALL_POLICY)
            small.put(*(insert(block, number, b"x") for block in range(BLOCKS)))
            small.flush()
        self.lsn = small.store.ready_lsn
        asked: list[Page] = [(*REL, block, self.lsn) for block in range(BLOCKS)]
        self.expected = read_together(small.store, asked)
        small.let_go()
        self.small, self.files, self.asked = small, MemoryFiles(), asked
        take_away(directory, self.files)
        self.storage = LazyStorage(directory, self.files, cache_blocks * BLOCK_BYTES)
        small.open(self.storage)
        small.ingest()

    def rounds_of(self, asked: list[Page]) -> list[int]:
        """Ranges that are asked for together, one such number for each time that one must wait."""
        forget(self.small, self.storage)
        before, together = self.files.requests, len(self.files.asked_together)
        places = [place[3] for place in asked]
        assert read_together(self.small.store, asked) == [self.expected[at] for at in places]
        rounds = self.files.asked_together[together:]
        alone = self.files.requests - before - sum(rounds)
        return rounds + [1] * alone


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Deep]:
    found = Deep(tmp_path / "deep", 1000, with_image=False)
    yield found
    found.small.let_go()


def test_a_page_that_visits_many_layers_waits_once(deep: Deep) -> None:
    assert deep.rounds_of(deep.asked[:1]) == [FLUSHES]
    (visited,) = (
        n for n, count in enumerate(deep.small.store.layers.map.visits) if count and n > 1
    )
    assert visited == FLUSHES


def test_a_batch_waits_once(deep: Deep) -> None:
    assert deep.rounds_of(deep.asked) == [FLUSHES], "each bundle is one block"


def test_bundles_that_are_not_open_are_opened_together(deep: Deep) -> None:
    """As after a restart. Here their ends are all they have."""
    deep.small.let_go()
    deep.storage = LazyStorage(deep.small.directory, deep.files, 1000 * BLOCK_BYTES)
    deep.small.open(deep.storage)
    deep.small.ingest()
    for bundle in deep.small.store.layers.map.l0:  # which to open the store may have opened
        bundle.reader._opened = bundle.reader._table = None
    assert deep.rounds_of(deep.asked) == [FLUSHES]


def test_without_foresight_it_waits_for_each(deep: Deep) -> None:
    """What the tests above would not notice otherwise."""
    deep.storage.is_lazy = False
    assert deep.rounds_of(deep.asked) == [1] * FLUSHES


def test_nothing_is_asked_for_that_is_here(deep: Deep) -> None:
    deep.rounds_of(deep.asked)
    before = deep.files.requests
    forget_pages(deep.small)
    forget_frames(deep.small.store.frames)
    assert read_together(deep.small.store, deep.asked) == deep.expected
    assert deep.files.requests == before
    for bundle in deep.small.store.layers.map.l0[:3]:
        source = deep.storage.source_of(bundle.reader.path)
        assert source is not None
        deep.storage.blocks.doubt(source, 0, source.size)
    forget_pages(deep.small)
    assert read_together(deep.small.store, deep.asked) == deep.expected
    assert deep.files.requests == before, "frames are here"
    forget_pages(deep.small)
    forget_frames(deep.small.store.frames)
    assert read_together(deep.small.store, deep.asked) == deep.expected
    assert deep.files.requests == before + 3


def test_nothing_below_the_image_that_ends_a_read_is_asked_for(tmp_path: Path) -> None:
    deep = Deep(tmp_path / "deep", 1000, with_image=True)
    layers = deep.small.store.layers.map
    kinds = {name.kind_text for name in deep.small.store.layers.state.files}
    assert "image" in kinds
    rounds = deep.rounds_of(deep.asked)
    above = 2  # flushes after the image
    assert rounds == [above + 1]
    assert sum(rounds) < len(deep.files.objects)
    assert layers.l0_count == above
    deep.small.let_go()


@pytest.mark.parametrize("cache_blocks", [1, 2, 3, 5, 8])
def test_a_cache_that_holds_less_than_a_batch_needs(tmp_path: Path, cache_blocks: int) -> None:
    """A part of it is filled at a time; nothing is lost, and nothing fetched over and over."""
    deep = Deep(tmp_path / "deep", cache_blocks, with_image=False)
    deep.rounds_of(deep.asked)  # bundles are open from now on
    rounds = deep.rounds_of(deep.asked)
    assert max(rounds) <= max(1, cache_blocks // 2)
    assert sum(rounds) == FLUSHES
    deep.small.let_go()


def test_what_was_seen_is_not_foreseen() -> None:
    """Requests whose stripe is over need not be complete: no version ended them."""
    query, ahead = LayerQuery(3), LayerQuery(3)
    query.begin(VersionSet())
    for number in range(3):
        query.add(relation_key(*REL, number).pack(), 0, 0, 100, 0)
    seen = []
    while query.next_group() >= 0:
        ahead.foresee(query)
        seen.append([ahead.key(i) for i in range(ahead.count)])
    keys = [query.key(i) for i in range(3)]
    assert seen == [keys, keys[1:], keys[2:]]
    ahead.foresee(query)
    assert ahead.count == 0


def test_an_object_that_is_gone_fails_who_needs_it_alone(deep: Deep) -> None:
    """The others of the batch still come together."""
    newest = deep.small.store.layers.map.l0[0].reader
    source = deep.storage.source_of(newest.path)
    assert source is not None
    older = deep.small.store.layers.map.l0[1].lsn_end - 1
    asked: list[Page] = [deep.asked[0], (*REL, 1, older)]
    forget(deep.small, deep.storage)
    _, *expected = read_together(deep.small.store, asked)
    forget(deep.small, deep.storage)
    del deep.files.objects[source.name]
    together = len(deep.files.asked_together)
    gone, found = read_together(deep.small.store, asked)
    assert isinstance(gone, str)
    assert "404" in gone
    assert expected == [found]
    assert deep.files.asked_together[together:] == [FLUSHES]


def test_a_bucket_that_does_not_answer_is_asked_once(deep: Deep) -> None:
    forget(deep.small, deep.storage)
    deep.files.is_down = True
    before = deep.files.requests
    for page in read_together(deep.small.store, deep.asked):
        assert isinstance(page, str)
        assert "connection refused" in page
    assert deep.files.requests == before + 1
