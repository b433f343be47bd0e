"""The engine writes as much as the simulator of its policy says: the same load through both.

Pages all over eight tables are written anew at random, flush by flush; what a version and a page of
an image take in the engine's files is measured there and given to the simulator. `pytest -s` shows
both. docs/compaction.md has the figures.
"""

import random
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.retention import Bounds
from formats import chunk
from formats.file_name import FileKind
from tests.fixtures.small_store import SmallStore, heap_page
from tests.fixtures.wal_builder import APPLY, HAS_HOLE, PAGE, Image, Record, Reference
from tools.compaction_simulator.simulation import RETENTION_DAYS, Simulation
from tools.compaction_simulator.strategy import Strategy
from tools.compaction_simulator.workload import DAY, Workload

SEED = 4
TABLES, BLOCKS = 8, 512
FLUSHES, VERSIONS = 160, 216
FLUSHES_RETAINED = 40
RANDOM_BYTES = 1300  # of a page; no compression makes them fewer
DIFFERENCE_MAX = 0.2
NOW = 0.0
RELATIONS = [(1663, 5, 16384 + table) for table in range(TABLES)]


def random_page(generator: random.Random) -> bytes:
    return heap_page(0)[:-RANDOM_BYTES] + generator.randbytes(RANDOM_BYTES)


def random_image(generator: random.Random) -> Record:
    """XLOG_FPI: some page becomes another one."""
    page = random_page(generator)
    hole = PAGE - 24 - RANDOM_BYTES
    written = Image(page[:24] + page[24 + hole :], 24, hole, APPLY | HAS_HOLE)
    relation, block = generator.choice(RELATIONS), generator.randrange(BLOCKS)
    return Record(0, 0xB0, references=[Reference(0, relation, block, image=written)])


class Engine:
    """A store with eight tables; what it wrote, by kind of file."""

    def __init__(self, directory: Path) -> None:
        self.generator = random.Random(SEED)
        tables = [
            (chunk.relation(*relation, 0), [random_page(self.generator) for _ in range(BLOCKS)])
            for relation in RELATIONS
        ]
        self.small = SmallStore(directory, tables)
        self.written = dict.fromkeys(FileKind, 0)
        self.durable = [self.small.store.durable_lsn]
        self.image_bytes_per_block = self._bytes_of(FileKind.IMAGE) // (TABLES * BLOCKS)

    def _bytes_of(self, kind: FileKind) -> int:
        files = self.small.store.manifest.state.files
        return sum(file.bytes_total for name, file in files.items() if name.kind == kind)

    def _step(self) -> bool:
        """A step of the compactor; counts the files that it wrote."""
        before = set(self.small.store.manifest.state.files)
        did = self.small.store.compact_step()
        files = self.small.store.manifest.state.files
        for name in files.keys() - before:
            self.written[name.kind] += files[name].bytes_total
        return did

    def run(self) -> None:
        store = self.small.store
        for _ in range(FLUSHES):
            before = self._bytes_of(FileKind.L0)
            self.small.put(*(random_image(self.generator) for _ in range(VERSIONS)))
            self.durable.append(self.small.flush())
            self.written[FileKind.L0] += self._bytes_of(FileKind.L0) - before
            horizon = self.durable[max(0, len(self.durable) - 1 - FLUSHES_RETAINED)]
            bounds = Bounds(0, store.ready_lsn - horizon)
            store.retention.step(NOW, bounds, store.commit_times.lsn_at)
            while self._step():
                pass

    @property
    def amplification(self) -> float:
        merged, images = self.written[FileKind.L1], self.written[FileKind.IMAGE]
        return (merged + images) / self.written[FileKind.L0]


def simulated(engine: Engine) -> Simulation:
    flushed = engine.written[FileKind.L0]
    flush_seconds = RETENTION_DAYS * DAY / FLUSHES_RETAINED
    load = Workload(
        name="measured",
        says="pages are written anew, all over",
        stripes=TABLES,
        stands_for=1,
        days=(FLUSHES + 0.5) * flush_seconds / DAY,
        bytes_per_second=flushed / FLUSHES / flush_seconds,
        version_bytes=flushed // (FLUSHES * VERSIONS),
        flush_bytes=flushed // FLUSHES,
        n_blocks=BLOCKS,
        image_bytes_per_block=engine.image_bytes_per_block,
    )
    assert load.flushes == FLUSHES
    return Simulation(load, Strategy(), SEED)


def test_the_engine_writes_what_the_simulator_says(
    fast_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)
    engine = Engine(fast_directory)
    engine.run()
    measured = simulated(engine).run()
    flushed = engine.written[FileKind.L0]
    print(
        f"\nengine: {engine.amplification:.2f} for each byte flushed, images "
        f"{engine.written[FileKind.IMAGE] / flushed:.2f}; simulated: {measured.amplification:.2f}, "
        f"images {measured.written['image'] / measured.flushed:.2f}"
    )
    assert engine.written[FileKind.IMAGE] > 0
    ratio = engine.amplification / measured.amplification
    assert 1 - DIFFERENCE_MAX < ratio < 1 + DIFFERENCE_MAX
