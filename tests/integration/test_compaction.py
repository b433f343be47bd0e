"""What is retained reads the same after compaction and collection as before (PostgreSQL's WAL).

The same base backup and WAL twice: one store only flushes, and says what is right. The other one
merges, makes images and collects all the while, keeps little but points and a lease, and is killed
and started again between; in the end it has nothing left to do.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import engine.collection
from engine.bundle_writer import BundleInfo
from engine.compaction_policy import Policy
from engine.page_store import PageStore
from engine.retention import Bounds
from formats import lsn as lsn_text
from formats.file_name import FileKind, FileName
from tests.fixtures.postgres_servers import PostgresFactory
from tests.fixtures.store_snapshot import differences, pages, snapshot
from tools.bench.generated_wal import GeneratedWal, capture
from tools.postgres import Server, Workspace

MIB = 1 << 20
MEMORY_BYTES = 64 * MIB
FLUSH_WAL_BYTES = 2 * MIB
RETENTION_WAL_BYTES = 8 * MIB
KILLED_EVERY = 5  # flushes
LEASE_SECONDS = 3600
PG_CLASS = (1663, 5, 1259, 0, 0)  # a page that exists at any LSN
DIFFERENCES_SHOWN_MAX = 20
NOW = 1_800_000_000.0  # seconds since 1970; the lease ends later
POLICY = Policy(own_file_bytes_min=256 << 10)
"""The server's, for a database this small."""
MULTIXACTS = Path(__file__).parent.parent / "fixtures" / "multixact.pgbench"
SETTINGS = {"wal_keep_size": "1GB", "autovacuum": "off", "synchronous_commit": "off"}
TABLES = """
CREATE TABLE mx (a int PRIMARY KEY, b int);
INSERT INTO mx SELECT g, 0 FROM generate_series(1, 200) g;
CREATE TABLE shrinks AS SELECT g AS a, repeat('x', 400) AS b FROM generate_series(1, 5000) g;
CREATE TABLE gone (a int PRIMARY KEY); INSERT INTO gone SELECT generate_series(1, 5000);
"""
Load = Callable[[Server], None]


def transactions(*options: str) -> Load:
    return lambda primary: void(primary.pgbench("-n", "-c", "2", "--random-seed=7", *options))


def script(*lines: str) -> Load:
    return lambda primary: void(primary.psql("\n".join(lines)))


def void(_: str) -> None:
    """What a program said is of no interest."""


STAGES: dict[str, tuple[Load, ...]] = {
    "point before": (
        script(TABLES),
        transactions("-t", "1000"),
        transactions("-t", "300", "-f", str(MULTIXACTS)),
    ),
    "expired": (
        script("CREATE DATABASE copied STRATEGY file_copy;", "CREATE DATABASE logged;"),
        transactions("-t", "1000"),
    ),
    "lease": (
        script("DELETE FROM shrinks WHERE a > 1000;", "VACUUM (FREEZE) shrinks;", "CHECKPOINT;"),
        transactions("-t", "1000"),
        script("\\c copied", "CREATE TABLE there AS SELECT generate_series(1, 3000) AS a;"),
    ),
    "expired too": (
        script("TRUNCATE shrinks;", "DROP TABLE gone;", "DROP DATABASE logged;"),
        script("INSERT INTO shrinks SELECT g, 'again' FROM generate_series(1, 2000) g;"),
        transactions("-t", "300", "-f", str(MULTIXACTS)),
        script("VACUUM FULL pgbench_branches;", "DROP DATABASE copied;", "CHECKPOINT;"),
    ),
    "point between": (transactions("-t", "3000"), script("CHECKPOINT;")),
    "expired last": (transactions("-t", "3000"), script("VACUUM pgbench_accounts;")),
    "above the horizon": (transactions("-t", "3000"), script("CHECKPOINT;")),
    "the end": (transactions("-t", "1000"),),
}
"""Each ends at an LSN that has its name."""


@pytest.fixture
def load(postgres: PostgresFactory, workspace: Workspace) -> tuple[GeneratedWal, dict[str, int]]:
    """The WAL of all stages behind a base backup, and the LSNs at which they ended."""
    primary = postgres(18, SETTINGS)
    primary.pgbench("-i", "-q", "-s", "1")
    ends: dict[str, int] = {}

    def run() -> None:
        for name, steps in STAGES.items():
            for step in steps:
                step(primary)
            ((end,),) = primary.sql("SELECT pg_current_wal_insert_lsn()")
            ends[name] = lsn_text.parse(end)

    return capture(workspace, primary, "all of it", run), ends


class Spy:
    """Counts what a compactor does; `watch` a store after each start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts: Counter[str] = Counter()
        prune = engine.collection.prune

        def counting(*arguments: Any) -> Iterator[set[FileName]]:
            for shrunk in prune(*arguments):
                self.counts["prunings"] += 1
                yield shrunk

        monkeypatch.setattr(engine.collection, "prune", counting)

    def watch(self, store: PageStore) -> None:
        commit = store.layers.commit

        def counting(added: Sequence[BundleInfo] = (), *more: Any, **options: Any) -> None:
            before = set(store.manifest.state.files)
            commit(added, *more, **options)
            kinds = Counter(info.name.kind for info in added)
            self.counts["merges"] += kinds[FileKind.L1]
            self.counts["images"] += kinds[FileKind.IMAGE]
            self.counts["files gone"] += len(before.difference(store.manifest.state.files))

        store.layers.commit = counting  # type: ignore[method-assign]


def kill(store: PageStore) -> None:
    """What the end of a process leaves: nothing is flushed any more."""
    store._let_go().close()


def take(store: PageStore, end_lsn: int, flushed: Callable[[PageStore], PageStore]) -> PageStore:
    """Ingest WAL up to an LSN and flush now and then; `flushed` may put another in its place."""
    while store.durable_lsn < end_lsn:
        more = store.ready_lsn < end_lsn and store.ingest_step()
        if store.ready_lsn - store.durable_lsn >= FLUSH_WAL_BYTES or not more:
            store.freeze()
            while store.flush_step():
                pass
            store = flushed(store)
        assert more or store.durable_lsn >= end_lsn
    return store


def compact(store: PageStore) -> None:
    while store.compact_step():
        pass


class Compacted:
    """The store that compacts whenever it has flushed, keeps `retained`, and dies at times."""

    def __init__(self, directory: Path, retained: Mapping[str, int], spy: Spy) -> None:
        self.directory = directory
        self.retained = retained
        self.newest = max(retained.values())
        self.spy = spy
        self.flushes = 0

    def start(self) -> PageStore:
        store = PageStore(self.directory, MEMORY_BYTES)
        assert store.compactor is not None
        store.compactor.policy = POLICY
        self.spy.watch(store)
        return store

    def flushed(self, store: PageStore) -> PageStore:
        self.flushes += 1
        self._keep(store)
        kept = max(store.ready_lsn - self.retained["above the horizon"], RETENTION_WAL_BYTES)
        store.retention.step(NOW, Bounds(0, kept), store.commit_times.lsn_at)
        if self.flushes % KILLED_EVERY:
            compact(store)
            return store
        for _ in range(self.flushes // KILLED_EVERY):
            store.compact_step()
        kill(store)
        return self.start()

    def _keep(self, store: PageStore) -> None:
        """Points and leases at the LSNs that have come since the last time."""
        leases = {lease.lsn for lease in store.retention.leases()}
        held = leases.union(point.lsn for point in store.retention.points())
        for name, lsn in self.retained.items():
            if name.startswith("point") and lsn <= store.ready_lsn and lsn not in held:
                store.retention.create_point(name.replace(" ", "-"), lsn)
            if name.startswith("lease") and lsn <= store.ready_lsn and lsn not in held:
                store.retention.create_lease(lsn, LEASE_SECONDS, NOW)


def test_what_is_retained_stays_and_the_rest_goes(
    load: tuple[GeneratedWal, dict[str, int]], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal, ends = load
    retained = {name: lsn for name, lsn in ends.items() if not name.startswith("expired")}
    directory = workspace.new_path("compacted")
    shutil.copytree(wal.page_store, directory)
    store = take(PageStore(wal.page_store, MEMORY_BYTES), wal.end_lsn, lambda same: same)
    before = {name: snapshot(store, lsn) for name, lsn in retained.items()}
    store.close()

    spy = Spy(monkeypatch)
    compacted = Compacted(directory, retained, spy)
    store = take(compacted.start(), wal.end_lsn, compacted.flushed)
    compact(store)
    store.close()
    store = compacted.start()
    compact(store)
    assert not store.compact_step()
    assert ends["expired last"] < store.horizon_lsn <= ends["above the horizon"]
    found = [
        difference
        for name, lsn in retained.items()
        for difference in differences(before[name], snapshot(store, lsn), lsn)
    ]
    assert not found, "\n".join(found[:DIFFERENCES_SHOWN_MAX])
    for name in ends.keys() - retained.keys():
        (answer,) = pages(store, [PG_CLASS], ends[name]).values()
        assert "below the horizon" in str(answer), name
    store.close()
    did = ("merges", "images", "prunings", "files gone")
    assert all(spy.counts[what] for what in did), spy.counts
