"""The data directory with which every simulated world begins: a base backup that is complete.

Its relation had records during the backup, and one page was copied in the middle of them: a fuzzy
image, over which those of before must not be applied again, and of which there is no image as long
as the backup's end is not reached. The last of these records the world itself receives.
"""

import shutil
from pathlib import Path

from formats.chunk import relation as relation_key
from tests.fixtures.control_file import with_checkpoint_time
from tests.fixtures.crash_workload import Content
from tests.fixtures.small_store import SmallStore, control_file, heap_page, insert
from tests.fixtures.wal_builder import WalBuilder
from tests.simulation.model import Sight
from tests.simulation.source import RELATIONS

MEMORY_BYTES = 1 << 19
START_SECONDS = 1_800_000_000  # of the checkpoint
TEXTS = tuple(b"before-%d" % n for n in range(5)) + (b"copied--", b"after--1", b"after--2")
RECORDS_COPIED, RECORDS_FLUSHED = 6, 7


class Template:
    def __init__(self, directory: Path) -> None:
        """Makes it in an empty directory."""
        self.directory = directory / "template"
        self.control = with_checkpoint_time(control_file(), START_SECONDS)
        relation, chunk = RELATIONS[0], relation_key(*RELATIONS[0], 0)
        records = [insert(1, n + 1, text, relation) for n, text in enumerate(TEXTS)]
        wal = WalBuilder(16 << 20, 1 << 20)
        ends = [wal.add(record) for record in records]
        copied = self._page_at(directory / "scratch", records, ends[RECORDS_COPIED - 1])
        self.directory.mkdir(parents=True)
        small = SmallStore(
            self.directory,
            [(chunk, [heap_page(7), copied])],
            memory_bytes=MEMORY_BYTES,
            control=self.control,
            backup_bytes=ends[-1] - wal.start,
        )
        small.add(*records[:RECORDS_FLUSHED])
        small.ingest()
        small.flush()
        small.let_go()
        self.wal = wal
        self.lsn = ends[-1]
        self.sight = Sight(
            {relation: 2}, {(relation, 0): Content(7), (relation, 1): Content(0, TEXTS)}
        )

    def _page_at(self, directory: Path, records: list, lsn: int) -> bytes:
        directory.mkdir(parents=True)
        key = relation_key(*RELATIONS[0], 0)
        small = SmallStore(
            directory, [(key, [heap_page(7), heap_page(7)])], memory_bytes=MEMORY_BYTES
        )
        small.put(*records)
        page = small.page(1, lsn, RELATIONS[0])
        small.let_go()
        return page

    def copy_to(self, directory: Path) -> None:
        shutil.copytree(self.directory, directory)
