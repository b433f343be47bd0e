"""How far the horizon may go: to the durable LSN, over what is still in L0."""

from pathlib import Path

import pytest

from engine import index_rebuild
from engine.compaction_policy import Policy
from engine.retention import Bounds
from formats.file_name import FileKind
from tests.fixtures.small_store import SmallStore, create, image

NOTHING_MORE = Bounds(0, 0)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallStore:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)
    return SmallStore(tmp_path)


def advance(small: SmallStore) -> int:
    """The horizon, as far as it may go."""
    small.store.retention.step(0, NOTHING_MORE, lambda time: None)
    return small.store.horizon_lsn


def test_a_restart_finds_the_horizon_readable(small: SmallStore) -> None:
    """Before any WAL is ingested again, which may have to come from the source first."""
    durable = small.put(create(), image(0, 1))
    small.flush()
    small.put(image(0, 2))
    assert advance(small) == durable
    small.let_go()
    small.open()
    assert small.store.horizon_lsn == small.store.ready_lsn == durable
    assert small.mark(0, durable) == 1
    small.let_go()


def test_l0_does_not_hold_the_horizon(small: SmallStore) -> None:
    """An image at the horizon has what is in no L1 layer yet; merged later, it is not lost."""
    policy = Policy(l0_bundles_merged_min=2, layers_max=1, debt_versions_per_block=1)
    before = set(small.store.manifest.state.files)
    marks = {small.put(create(), image(0, 1)): 1}
    for mark in range(2, 12):
        marks[small.put(image(0, mark))] = mark
        if mark % 2:
            small.flush()
        assert small.store.compactor is not None
        small.store.compactor.policy = policy
        horizon = advance(small)
        assert horizon == small.store.durable_lsn
        while small.store.compact_step():
            pass
        small.reopen()
        for lsn, written in marks.items():
            if lsn >= horizon:
                assert small.mark(0, lsn) == written
    added = small.store.manifest.state.files.keys() - before
    assert any(name.kind == FileKind.IMAGE for name in added)
    small.let_go()
