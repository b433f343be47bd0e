"""A directory that ends at an LSN: it answers as the one it came from did, and never goes on."""

import os
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.errors import RequestError
from engine.journal import Journal
from engine.manifest_log import ManifestLog
from engine.page_store import PageStore
from engine.retention import Bounds
from engine.storage import Storage
from formats.manifest_end import ending_at
from formats.manifest_record import EndsAt
from tests.fixtures.rebuilt_index import check_index
from tests.fixtures.small_store import (
    MEMORY_BYTES,
    SMALL_POLICY,
    SmallStore,
    create,
    drop,
    image,
    truncate,
)
from tests.fixtures.store_answers import answers
from tests.fixtures.store_history import RELATIONS, History
from tests.fixtures.wal_builder import MIB


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def end(small: SmallStore, lsn: int, directory: Path) -> PageStore:
    """The directory of a stopped store, as of `lsn`, restored as a restore does it, and opened."""
    paths, storage = small.store.paths, Storage()
    (directory / "layers").mkdir(parents=True)
    before = small.store.manifest.state
    state = ending_at(before, lsn)
    for name in state.files:
        os.link(paths.layers / name.text, directory / "layers" / name.text)
    if lsn > before.durable_lsn:
        journal = Journal(storage, paths.journal, MIB)
        restored = Journal(storage, directory / "journal", MIB)
        restored.begin(journal.start_lsn, 1)
        at = journal.start_lsn
        while at < lsn:
            data = journal.read(at, min(MIB, lsn - at))
            restored.append(at, data)
            at += len(data)
        restored.close()
        journal.close()
    ManifestLog.create(storage, directory / "manifest", *state.records()).close()
    return PageStore(directory, MEMORY_BYTES)


@pytest.mark.parametrize("seed", [1, 2])
def test_it_answers_at_its_end_and_before_as_what_it_came_from(tmp_path: Path, seed: int) -> None:
    history = History(tmp_path / "from", seed, 130)
    small = history.small
    assert history.lsns[0] < small.store.durable_lsn < history.lsns[-1]
    held = sorted(history.random.sample(history.lsns[20:70], 3))
    for lsn in held:
        small.store.retention.create_point(f"at-{lsn}", lsn)
    horizon = history.lsns[85]
    small.advance_horizon(horizon)
    small.compact(SMALL_POLICY)
    readable = [*held, *(lsn for lsn in history.lsns if lsn >= horizon)]
    right = {lsn: answers(small.store, lsn) for lsn in readable}
    small.let_go()
    ends = {*held, readable[3], readable[-1], *history.random.sample(readable, 2)}
    for lsn in sorted(ends):
        directory = tmp_path / f"{lsn:x}"
        store = end(small, lsn, directory)
        while store.ingest_step():
            pass
        assert store.ready_lsn == lsn
        for earlier in (each for each in readable if each <= lsn):
            assert answers(store, earlier) == right[earlier]
        assert store.retention.step(1e12, Bounds(1, 1), store.commit_times.lsn_at) is False
        assert not store.compact_step()
        (tmp_path / f"index-{lsn:x}").mkdir()
        check_index(store, tmp_path / f"index-{lsn:x}")
        store.close()
        again = PageStore(directory, MEMORY_BYTES)
        assert (again.ready_lsn, again.durable_lsn) == (lsn, lsn)
        assert answers(again, lsn) == right[lsn]
        again.close()


def test_what_happened_to_a_relation_after_the_end_did_not(tmp_path: Path) -> None:
    """All of it in the bundles that are kept: cut off, dropped and created above the end."""
    cut, dropped, created = RELATIONS[:3]
    (tmp_path / "from").mkdir()
    small = SmallStore(tmp_path / "from")
    small.put(create(cut), create(dropped))
    lsn = small.put(
        *(image(block, 10 + block, each) for block in range(3) for each in (cut, dropped))
    )
    small.put(truncate(1, cut), drop(dropped), create(created), image(0, 9, created))
    small.put(image(1, 99, cut), image(0, 77, cut))
    small.flush()
    small.let_go()
    assert len(ending_at(small.store.manifest.state, lsn).files) == len(
        small.store.manifest.state.files
    )
    store = end(small, lsn, tmp_path / "ended")
    assert store.nblocks(*cut, 0, lsn) == store.nblocks(*dropped, 0, lsn) == 3
    assert not store.exists(*created, 0, lsn)
    found = answers(store, lsn)
    assert len(set(found["relation", *cut, 0])) == 3
    with pytest.raises(RequestError, match="1663/5/16386 has no main fork"):
        store.nblocks(*created, 0, lsn)
    assert len(store.relations(lsn)) == 2
    # The index knows none of it: a read needs no history to find the sizes of the end.
    assert all(state.lsn <= lsn for _, state in store.layers.index.relations())
    store.close()


def test_an_end_within_a_record_is_the_state_before_it(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    small = SmallStore(tmp_path / "from")
    whole = small.put(create(RELATIONS[0]), image(0, 1, RELATIONS[0]))
    right = answers(small.store, whole)
    pages = right["relation", *RELATIONS[0], 0]
    small.put(image(0, 2, RELATIONS[0]))
    small.let_go()
    store = end(small, whole + 40, tmp_path / "ended")
    while store.ingest_step():
        pass
    assert store.ready_lsn == whole + 40
    assert answers(store, whole) == right
    assert answers(store, whole + 40)["relation", *RELATIONS[0], 0] == pages
    store.freeze()
    assert store.flush_step()
    assert store.durable_lsn == whole + 40
    store.close()
    assert PageStore(tmp_path / "ended", MEMORY_BYTES).ready_lsn == whole + 40


def test_the_manifest_says_where_it_ends(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    small = SmallStore(tmp_path / "from")
    lsn = small.put(create(RELATIONS[0]))
    small.flush()
    small.store.retention.create_point("kept", lsn)
    later = small.put(image(0, 1, RELATIONS[0]))
    small.store.retention.create_point("gone", later)
    small.flush()
    state = ending_at(small.store.manifest.state, lsn)
    assert list(state.points) == ["kept"]
    assert state.records()[-1] == EndsAt(lsn)
    assert all(record.lsn_start <= lsn for record in state.files.values())
    assert len(state.files) == len(small.store.manifest.state.files) - 1
    assert small.store.manifest.state.ends_at_lsn is None
    small.let_go()
