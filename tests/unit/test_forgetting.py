"""What nobody can ask for goes, from the disk and from memory, wherever a process ended."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine import index_rebuild, survey
from engine.compaction_policy import Policy
from engine.compactor import COLLECTING
from engine.index_rebuild import is_l0
from engine.retention import Bounds
from formats import chunk, version
from formats.chunk import HISTORY, ChunkKey
from formats.file_name import FileKind, FileName
from formats.manifest import Manifest
from tests.fixtures.rebuilt_index import check_index
from tests.fixtures.small_store import SmallStore, create, drop, heap_page, image, truncate

HELD, GONE = (1663, 5, 16384), (1663, 5, 16385)
POLICY = Policy(l0_bundles_merged_min=2, debt_bytes_min=1 << 40, debt_versions_per_block=1 << 40)
ONE_BY_ONE = Policy(l0_bundles_merged_min=1, debt_bytes_min=1 << 40,
                    debt_versions_per_block=1 << 40)  # fmt: skip
STEPS_MAX = 300


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


@pytest.fixture
def small(tmp_path: Path) -> SmallStore:
    path = tmp_path / "store"
    path.mkdir()
    return SmallStore(path)


def advance_horizon(small: SmallStore) -> None:
    small.store.retention.step(0.0, Bounds(0, 0), lambda time: None)
    assert small.store.horizon_lsn == small.store.durable_lsn


def step_until(small: SmallStore, is_there: Callable[[], bool]) -> None:
    for _ in range(STEPS_MAX):
        if is_there():
            return
        small.store.compact_step()
    raise AssertionError("it does not come to that")


def keys_of(small: SmallStore, relation: tuple[int, int, int]) -> list[int]:
    """The kinds of chunks of a relation that have layers below L0."""
    stripes = small.store.layers.index.stripes_after(None, 1 << 20)
    found = (ChunkKey.unpack(key) for (key, _), _ in stripes)
    return [key.kind for key in found if key[1:4] == relation]


def test_layers_of_a_forgotten_relation_go_after_a_restart(
    small: SmallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge brings a dropped relation below L0 when the survey has passed its pages, not its
    history: this one goes, and the process ends before the next survey."""
    monkeypatch.setattr(survey, "BATCH_STRIPES", 1)
    small.put(create(HELD), image(0, 1, HELD))
    small.flush()
    small.put(image(0, 2, HELD))
    small.flush()
    small.compact(POLICY)
    small.put(create(GONE), image(0, 3, GONE), drop(GONE))
    small.flush()
    small.put(image(0, 4, HELD))
    advance_horizon(small)
    compactor = small.store.compactor
    assert compactor is not None

    def is_in_histories() -> bool:
        place = compactor._survey._place if compactor._survey else None
        return place is not None and bool(place[0][0] & HISTORY)

    step_until(small, is_in_histories)
    assert compactor.state == COLLECTING
    small.flush()
    step_until(small, lambda: not is_in_histories())
    assert keys_of(small, GONE) == [chunk.ChunkKind.REL]  # or it was no test
    small.reopen()
    small.compact(POLICY)
    assert keys_of(small, GONE) == []
    assert keys_of(small, HELD)
    assert small.mark(0, small.store.ready_lsn, HELD) == 4
    small.let_go()


def test_a_copy_that_no_history_tells_of_yet_stays(small: SmallStore) -> None:
    """CREATE DATABASE commits images before the histories that come with the next flush."""
    small.put(create(HELD), image(0, 1, HELD))
    small.flush()
    end = small.put(image(0, 2, HELD))
    writer = small.store._bundles.create(FileKind.IMAGE)
    writer.add_pages(
        chunk.relation(*GONE, 0).pack(), 0, end, version.IMAGE_EXACT, memoryview(heap_page(7))
    )
    small.store.layers.commit([writer.finish()])
    advance_horizon(small)
    small.compact(POLICY)
    assert keys_of(small, GONE) == [chunk.ChunkKind.REL]
    small.let_go()


def cuts_in_memory(small: SmallStore, relation: tuple[int, int, int]) -> list[tuple[int, int]]:
    history = small.store.versions.history
    return list(history.cuts.get(history.find(*chunk.relation(*relation, 0)), ()))


def cuts_in_index(small: SmallStore, relation: tuple[int, int, int]) -> list[tuple[int, int]]:
    state = small.store.layers.index.relation(chunk.relation(*relation, 0).pack())
    return [] if state is None else [(cut.lsn, cut.n_blocks) for cut in state.cuts]


def test_cuts_below_the_horizon_are_forgotten(small: SmallStore, tmp_path: Path) -> None:
    """A queue whose end vacuum cuts off again and again, and a point in its middle."""
    small.put(create(HELD), image(2, 1, HELD))
    held = 0
    for number in range(100):
        end = small.put(image(5, number, HELD), truncate(1 + number % 3, HELD))
        if number == 50:
            small.store.retention.create_point("held", end)
            held = end
        if number % 20 == 19:
            small.flush()
    small.put(image(5, 100, HELD))
    small.put(image(0, 101, HELD))
    small.flush()
    assert len(cuts_in_memory(small, HELD)) == 101
    advance_horizon(small)
    before = {lsn: blocks_and_marks(small, lsn) for lsn in (held, small.store.ready_lsn)}
    small.compact(ONE_BY_ONE)
    (tmp_path / "work").mkdir()
    check_index(small.store, tmp_path / "work")
    for _ in range(2):
        assert 2 <= len(cuts_in_memory(small, HELD)) <= 6
        assert cuts_in_index(small, HELD) == cuts_in_memory(small, HELD)
        assert {lsn: blocks_and_marks(small, lsn) for lsn in before} == before
        small.reopen()
    small.let_go()


def blocks_and_marks(small: SmallStore, lsn: int) -> list[int]:
    count = small.store.nblocks(*HELD, 0, lsn)
    return [small.mark(block, lsn, HELD) for block in range(count)]


def test_a_start_does_not_write_histories_anew_that_were(small: SmallStore) -> None:
    """Which cuts stay is told from what is stored; steps of a size that grows need them all."""
    small.put(create(HELD), *(image(block, 1, HELD) for block in range(60)))
    for number in range(30):
        small.put(truncate(20 + number, HELD), *(image(b, 2, HELD) for b in range(50, 60)))
    small.flush()
    small.put(image(0, 3, HELD))
    small.flush()
    advance_horizon(small)
    small.compact(ONE_BY_ONE)
    assert len(cuts_in_index(small, HELD)) == 31
    names = set(small.store.layers.state.files)
    for _ in range(2):
        small.reopen()
        small.compact(ONE_BY_ONE)
        assert set(small.store.layers.state.files) == names
    small.let_go()


def test_nothing_is_left_in_memory_of_the_cuts_of_what_was_dropped(small: SmallStore) -> None:
    small.put(create(HELD), image(0, 1, HELD))
    relations = [(1663, 5, 20000 + number) for number in range(200)]
    for relation in relations:
        small.put(create(relation), image(0, 1, relation), drop(relation))
    small.put(create(relations[0]), image(0, 9, relations[0]))
    small.flush()
    small.put(image(0, 2, HELD))
    small.flush()
    advance_horizon(small)
    small.compact(ONE_BY_ONE)
    small.put(image(0, 3, HELD), create(relations[1]), image(0, 8, relations[1]))
    small.flush()
    advance_horizon(small)
    small.compact(ONE_BY_ONE)
    assert len(small.store.versions.history.cuts) < 10
    lsn = small.store.ready_lsn
    assert [small.mark(0, lsn, relations[place]) for place in (0, 1)] == [9, 8]
    small.let_go()


def test_a_commit_does_not_look_at_all_files(
    small: SmallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a flush costs does not grow with the number of files."""
    small.put(create(HELD), image(0, 1, HELD))
    for number in range(8):
        small.put(image(0, number, HELD))
        small.flush()
    looked_at = []

    def noted(manifest: Manifest, name: FileName) -> bool:
        looked_at.append(name)
        return is_l0(manifest, name)

    monkeypatch.setattr(index_rebuild, "is_l0", noted)
    small.put(image(0, 9, HELD))
    small.flush()
    assert looked_at == []
    small.let_go()
