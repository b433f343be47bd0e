"""The whole store against a dictionary: every page and size at every LSN, however it got there.

Relations are created, extended, truncated, dropped and created again; pages are images, are
initialised, get tuples; memtables are frozen when they are full or at any time, flushed at once or
later; layers are merged, get images, and go when no LSN that can be asked for needs them; the
process dies and comes back. Hot pages get images after four records, so that those are in play as
well. Reads of any LSN come at any time, so that the page cache has something to spoil.
"""

import copy
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import index_rebuild, version_store
from formats import page as pages
from tests.fixtures.rebuilt_index import check_index
from tests.fixtures.small_store import (
    SMALL_POLICY,
    STEPS_MAX,
    SmallStore,
    create,
    drop,
    image,
    insert,
    mark_of,
    truncate,
)
from tests.fixtures.wal_builder import Record

RELATIONS = [(1663, 5, 16384), (1663, 5, 16385)]
BLOCKS = [0, 1, 2, 16383, 16384, 131071, 131072, 131075]
SIZES = [0, 1, 2, 3, 16384, 131072, 131073]
XIDS = [3, 700, 32767, 32768, 32768 * 32, 32768 * 32 + 1]
TUPLES_MAX = 12  # a page has room for them


@dataclass
class Content:
    """A page: the mark of its image, and its tuples."""

    mark: int = 0
    tuples: list[bytes] = field(default_factory=list)


@dataclass
class Relation:
    blocks: int = 0
    content: dict[int, Content] = field(default_factory=dict)


class Model:
    """What exists at the end of the WAL, and what existed at each LSN noted."""

    def __init__(self, lsn: int) -> None:
        self.relations: dict[tuple[int, int, int], Relation] = {}
        self.status: dict[int, int] = {}
        self.past: dict[int, tuple[dict, dict]] = {}
        self.note(lsn)

    def note(self, lsn: int) -> None:
        self.past[lsn] = (copy.deepcopy(self.relations), dict(self.status))

    def page(self, relation, block: int) -> Content | None:
        found = self.relations.get(relation)
        return None if found is None else found.content.get(block)

    def change(self, relation, block: int, content: Content) -> None:
        found = self.relations.setdefault(relation, Relation())
        found.blocks = max(found.blocks, block + 1)
        found.content[block] = content


def commit(xid: int, status: int) -> Record:
    return Record(1, 0x00 if status == 1 else 0x20, xid, bytes(8))


def apply(small: SmallStore, model: Model, op: tuple) -> None:
    """One record, into the WAL and the model."""
    kind, relation, block, size, number = op
    found = model.relations.get(relation)
    if kind == "create":
        small.add(create(relation))
        model.relations.setdefault(relation, Relation())
    elif kind == "drop":
        small.add(drop(relation, xid=XIDS[0]))
        model.relations.pop(relation, None)
        model.status[XIDS[0]] = 1
    elif kind == "truncate":
        small.add(truncate(size, relation))
        found = model.relations.setdefault(relation, Relation())
        found.blocks = min(found.blocks, size)
        found.content = {b: page for b, page in found.content.items() if b < size}
    elif kind == "image":
        small.add(image(block, number, relation))
        model.change(relation, block, Content(number))
    elif kind == "commit":
        xid = XIDS[number % len(XIDS)]
        small.add(commit(xid, 1 + number % 2))
        model.status[xid] = 1 + number % 2
    else:
        old = model.page(relation, block)
        init = kind == "init" or old is None or len(old.tuples) >= TUPLES_MAX
        tuples = [] if init else old.tuples
        text = number.to_bytes(8, "little")
        small.add(insert(block, len(tuples) + 1, text, relation, init=init))
        model.change(relation, block, Content(0 if init else old.mark, [*tuples, text]))
    model.note(small.wal.placed[-1][1])


def check(small: SmallStore, model: Model, lsn: int) -> None:
    relations, status = model.past[lsn]
    store = small.store
    for relation in RELATIONS:
        expected = relations.get(relation)
        assert store.exists(*relation, 0, lsn) == (expected is not None)
        if expected is not None:
            assert store.nblocks(*relation, 0, lsn) == expected.blocks
        for block in BLOCKS:
            check_page(small, relation, block, lsn, expected)
    for xid in XIDS:
        assert status_of(small, xid, lsn) == status.get(xid, 0), f"status of {xid}"


def check_page(small, relation, block, lsn, expected) -> None:
    if expected is None or block >= expected.blocks:
        with pytest.raises(LookupError, match="no main fork" if expected is None else "its end"):
            small.page(block, lsn, relation)
        return
    content = small.page(block, lsn, relation)
    want = expected.content.get(block)
    where = f"block {block} of {relation} at {lsn}"
    if want is None:
        assert content == bytes(8192), where
        return
    view = memoryview(bytearray(content))
    found = [
        bytes(view[(at := pages.item_offset(view, n)) + 24 : at + 32])
        for n in range(1, pages.max_offset(view) + 1)
    ]
    assert found == want.tuples, where
    if not found:  # else tuples lie over the mark
        assert mark_of(content) == want.mark, where


def status_of(small: SmallStore, xid: int, lsn: int) -> int:
    segment, rest = divmod(xid, 32768 * 32)
    exists = any(key[:2] == (0, segment) for key in small.store.slru_segments(lsn))
    data = small.store.slru_segment(0, segment, lsn) if exists else b""
    byte = rest // 4
    return data[byte] >> rest % 4 * 2 & 3 if byte < len(data) else 0


POLICY = replace(SMALL_POLICY, own_file_bytes_min=200)


def advance_horizon(small: SmallStore, model: Model, choice: int) -> None:
    store = small.store
    known = [lsn for lsn in model.past if store.horizon_lsn <= lsn <= store.durable_lsn]
    if known:
        small.advance_horizon(known[choice % len(known)])


def flush(small: SmallStore) -> None:
    while small.store.flush_step():
        pass


def begin(small: SmallStore) -> None:
    """A full memtable does not wait for a flush thread: there is none."""
    versions = small.store.versions
    small.store.compactor.policy = POLICY
    replace = versions.replace_memtable

    def flush_and_replace() -> None:
        flush(small)
        replace()

    versions.replace_memtable = flush_and_replace


RECORDS = st.tuples(
    st.sampled_from(["create", "drop", "truncate", "image", "init", *["insert"] * 6, "commit"]),
    st.sampled_from(RELATIONS),
    st.sampled_from(BLOCKS),
    st.sampled_from(SIZES),
    st.integers(1, 1 << 32),
)
DEEDS = st.sampled_from(["ingest", "freeze", "flush", "flush", "reopen", "read"])
CHOICES = st.tuples(
    st.sampled_from(["read", "compact", "horizon", "age", "age", "age"]), st.integers(0, 1000)
)
STEPS = st.lists(
    st.one_of(RECORDS, RECORDS, RECORDS, DEEDS, CHOICES),
    min_size=5,
    max_size=80,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, memory=st.sampled_from([1 << 20, 8 << 20]))
def test_every_page_at_every_lsn(tmp_path_factory, steps, memory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_rebuild, "check_in_child", lambda path: True)
        patch.setattr(version_store, "HOT_RECORDS", 4)
        small = SmallStore(tmp_path_factory.mktemp("store"), memory_bytes=memory)
        try:
            run(small, steps)
        finally:
            small.let_go()


def run(small: SmallStore, steps: list) -> None:
    begin(small)
    model = Model(small.store.ready_lsn)
    for step in steps:
        if step == "ingest":
            small.ingest()
        elif step == "freeze":
            small.store.freeze()
        elif step == "flush":
            small.flush()
        elif step == "reopen":
            small.receive()
            small.let_go()
            small.open()
            begin(small)
        elif step == "read":
            check(small, model, newest(small, model))
        elif step[0] == "read":
            known = readable(small, model)
            check(small, model, known[step[1] % len(known)])
        elif step[0] == "compact":
            compact(small, step[1] % 8)
        elif step[0] == "age":
            small.ingest()
            small.flush()
            compact(small, STEPS_MAX)
            advance_horizon(small, model, step[1])
        elif step[0] == "horizon":
            advance_horizon(small, model, step[1])
        else:
            apply(small, model, step)
    small.ingest()
    for lsn in readable(small, model):
        check(small, model, lsn)
    small.flush()
    compact(small, STEPS_MAX)
    for lsn in readable(small, model):
        check(small, model, lsn)
    work = small.directory / "rebuilt"
    work.mkdir()
    check_index(small.store, work)
    small.reopen()
    for lsn in reversed(readable(small, model)):
        check(small, model, lsn)


def compact(small: SmallStore, steps: int) -> None:
    for _ in range(steps):
        if not small.store.compact_step():
            return
    assert steps < STEPS_MAX, "compaction comes to no end"


def readable(small: SmallStore, model: Model) -> list[int]:
    store = small.store
    return [lsn for lsn in model.past if store.horizon_lsn <= lsn <= store.ready_lsn]


def newest(small: SmallStore, model: Model) -> int:
    return max(readable(small, model))
