"""Compaction while somebody reads, or after a commit that failed: what readers know is not old."""

import errno
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.compaction_policy import Policy
from engine.retention import Bounds
from formats.file_name import FileKind
from tests.fixtures.faulty_storage import FaultyStorage
from tests.fixtures.small_store import REL, SmallStore, create, drop, image, insert
from tests.unit.test_compactor_steps import (
    EAGER,
    OTHER,
    advance_horizon,
    busy_reader,
    compact,
    content,
    inserts,
    no_child,
    small,
)

__all__ = ["no_child", "small"]  # fixtures


def test_collection_between_memtables_and_layers(
    small: SmallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader takes a record from a memtable; before it comes to the layers, that is flushed and
    merged, an image takes it in, and what lay below the image goes: the reader begins anew."""
    small.put(create())
    inserts(small, 4)
    compact(small)
    small.put(insert(0, 5, b"row 5"))
    expected = content(small)
    layers = small.store.layers.map
    collect, came = layers.collect_batch, list[threading.Thread]()

    def flush_and_collect() -> None:
        small.flush()
        advance_horizon(small)
        compact(small, replace(EAGER, l0_bundles_merged_min=1))

    def collect_later(*arguments: object) -> None:
        if not came:
            came.append(threading.Thread(target=flush_and_collect))
            came[0].start()
            came[0].join()
        collect(*arguments)

    monkeypatch.setattr(layers, "collect_batch", collect_later)
    assert content(small) == expected
    assert came


def test_an_image_waits_for_the_memtable_that_is_flushed(
    small: SmallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the layers already, but readers look into it first: its records must find what they
    belong to."""
    small.put(create())
    inserts(small, 4)
    compact(small)
    small.put(insert(0, 5, b"row 5"))
    expected = content(small)
    publish, came = small.store.versions.publish, list[bytes]()

    def publish_later(memtable: object) -> None:
        small.store.retention.step(0.0, Bounds(0, 0), lambda time: None)
        compact(small, replace(EAGER, l0_bundles_merged_min=1))
        came.append(content(small))
        publish(memtable)

    monkeypatch.setattr(small.store.versions, "publish", publish_later)
    small.flush()
    assert came == [expected]
    compact(small)
    assert content(small) == expected


@pytest.mark.parametrize("is_remembered", [True, False])
def test_what_was_remembered_before_an_index_was_mended(
    small: SmallStore, monkeypatch: pytest.MonkeyPatch, *, is_remembered: bool
) -> None:
    """The index could not follow a merge: what readers know of the stripe, or are about to, is old
    as soon as it can."""
    storage = FaultyStorage()
    small.reopen(storage)
    small.put(create())
    inserts(small, 4)
    compact(small)
    inserts(small, 4, first=5)
    layers, index = small.store.layers, small.store.layers.index
    if is_remembered:
        expected = content(small)
    storage.fail("commit", errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        compact(small)
    if not is_remembered:
        stripe = index.stripe

        def stripe_and_mend(key: bytes, number: int) -> object:
            found = stripe(key, number)
            layers.mend()
            return found

        with monkeypatch.context() as patch:
            patch.setattr(index, "stripe", stripe_and_mend)
            expected = content(small)
    layers.mend()
    assert layers.map.l0_count < 4
    assert content(small) == expected


def test_a_history_that_went_is_not_looked_for(small: SmallStore) -> None:
    """A reader that knew of it finds nothing, and that is right: there was no such relation."""
    policy = Policy(l0_bundles_merged_min=1, own_file_bytes_min=1)
    small.put(create())
    before = small.put(create(OTHER), image(0, 1, OTHER))
    small.put(drop(OTHER))
    small.flush()
    compact(small, policy)
    assert small.store.exists(*OTHER, 0, before)  # it is remembered where that is said
    small.put(image(0, 1))
    end = small.flush()
    advance_horizon(small)
    compact(small, policy)
    small.put(create(OTHER))
    assert not small.store.exists(*OTHER, 0, end)


def test_mending_removes_only_what_no_commit_has_named(small: SmallStore) -> None:
    """Not what was merged long ago, and went when nobody needed it any more."""
    storage = FaultyStorage()
    small.reopen(storage)
    small.put(create(), create(OTHER))
    inserts(small, 4)
    compact(small)
    (merged,) = (name for name in small.store.manifest.state.files if name.kind == FileKind.IMAGE)
    small.put(drop(REL))
    small.flush()
    advance_horizon(small)
    compact(small)
    assert merged not in small.store.manifest.state.files
    small.put(image(0, 1, OTHER))
    storage.fail("commit", errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        small.flush()
    small.flush()
    small.reopen(storage)
    assert small.mark(0, small.store.ready_lsn, OTHER) == 1


def test_a_file_stays_for_who_begins_to_read_while_it_goes(
    small: SmallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest has it no more, but readers are still shown it."""
    small.put(create())
    inserts(small, 4)
    index, leave = small.store.layers.index, list[Callable[[], None]]()
    commit, paths = index.commit, list[Path]()

    def commit_later(serial: int, durable_lsn: int, added=(), removed=(), *others: object) -> None:
        whole = [removal.name.text for removal in removed if removal.is_whole]
        if whole and not leave:
            leave.append(busy_reader(small))
            paths.extend(small.store.paths.layers / text for text in whole)
        commit(serial, durable_lsn, added, removed, *others)

    monkeypatch.setattr(index, "commit", commit_later)
    compact(small)
    assert paths and all(path.exists() for path in paths)
    leave[0]()
    compact(small)
    assert not any(path.exists() for path in paths)


def test_each_file_waits_for_its_own_readers(
    small: SmallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who began after one file had gone may still want the one that goes next."""
    layers, policy = small.store.layers, Policy(l0_bundles_merged_min=1)
    small.put(create())
    paths = []
    with monkeypatch.context() as patch:
        patch.setattr(layers, "unlink_step", lambda: False)
        for number in (1, 2):
            leave = busy_reader(small)
            inserts(small, 1, first=number)
            paths.append(small.store.paths.layers / layers.map.l0[0].reader.name.text)
            compact(small, policy)
            if number == 1:
                leave()
    while layers.unlink_step():
        pass
    assert [path.exists() for path in paths] == [False, True]
    leave()
    while layers.unlink_step():
        pass
    assert not paths[1].exists()
