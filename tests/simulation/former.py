"""A server that another one has taken over from, and that does not know it.

It gets WAL from the source, flushes, compacts, sends and answers as before. What it does on its own
disk is nobody's business; of the bucket it must take nothing away, and acknowledge nothing more. An
answer that it gives is right, or an error.
"""

import contextlib
from collections import Counter
from collections.abc import Callable
from random import Random

from engine.errors import IngestStopped
from engine.page_store import PageStore
from formats.errors import CorruptionError
from server.remote_layers import RemoteLayers
from tests.simulation.backup_process import BackupProcess, Link
from tests.simulation.lazy_disk import LazyDisk
from tests.simulation.model import Model
from tests.simulation.reads import Reads
from tests.simulation.source import Source

FORMER = "former"  # how names of its tasks begin


class Former:
    def __init__(
        self,
        store: PageStore,
        disk: LazyDisk,
        remote_layers: RemoteLayers,
        process: BackupProcess,
        link: Link,
        source: Source,
        model: Model,
        totals: Counter[str],
    ) -> None:
        self.process = process
        self.link = link
        self._store = store
        self._disk = disk
        self._remote_layers = remote_layers
        self._source = source
        self._totals = totals
        self._counts: Counter[str] = Counter()
        self._reads = Reads(model, self._counts)
        self._reads.is_damaged = True  # objects may be gone: an error is an answer
        self._reads.is_away = lambda: True

    def deed(self, random: Random) -> tuple[str, Callable[[], object]]:
        """The name of a task, and what it does."""
        name, do = random.choice((
            ("upload", lambda: self.process.run(3)), ("upload", lambda: self.process.run(3)),
            ("talk", lambda: self.link.talk(self.process)), ("receive", self._receive),
            ("flush", self._flush), ("compact", self._compact),
            ("read", lambda: self._read(random)),
        ))  # fmt: skip
        return f"{FORMER} {name}", lambda: self._do(do)

    def _do(self, do: Callable[[], object]) -> None:
        """What it cannot read it cannot read: objects that it believes in go after a while."""
        try:
            do()
            self._totals["deeds of former servers"] += 1
        except (OSError, CorruptionError, IngestStopped):
            self._totals["errors of former servers"] += 1

    def _read(self, random: Random) -> None:
        if self._store.ready_lsn >= self._store.horizon_lsn:
            self._reads.some(random, self._store, self._source.blocks)

    def _receive(self) -> None:
        store = self._store
        if store.remote.is_fenced or store.journal.is_empty:
            return
        store.journal.append(
            store.journal.received_lsn, self._source.bytes_from(store.journal.received_lsn)
        )
        store.journal.sync()

    def _flush(self) -> None:
        """Before it comes to a memtable that has no room."""
        store = self._store
        while store.flush_step():
            pass
        if store.versions.memtables.has_one:
            store.ingest_step()
        store.freeze()
        while store.flush_step():
            pass

    def _compact(self) -> None:
        if not self._remote_layers.evict():
            self._store.compact_step()

    def end(self) -> None:
        """Its machine is gone; its tasks have ended."""
        self._totals["pages read from former servers"] += self._counts["pages read"]
        with contextlib.suppress(LookupError):
            self._store.layers.index.close()
        self._disk.close_all()
