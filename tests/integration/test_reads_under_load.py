"""A page at an LSN is the same page whenever it is asked for: hot, while flushing, after a restart.

Readers sample random blocks at the ready LSN while the primary writes and small memtables are
flushed all the time; afterwards, and once more after a restart, the same (block, LSN) must give the
same bytes, and each page a checksum that fits.
"""

import random
import threading
import time

from formats import page as pages
from formats import page_checksum
from formats.lsn import parse
from server.client import PageClient
from tools.page_server import PageServer
from tools.postgres import Server

TABLES = ("pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_accounts_pkey")
SECONDS = 12

Sample = tuple[int, int, int, bytes]  # relation, block, LSN, page


def relations(primary: Server) -> tuple[int, list[int]]:
    database = int(primary.sql("SELECT oid FROM pg_database WHERE datname = 'postgres'")[0][0])
    nodes = [int(primary.sql(f"SELECT pg_relation_filenode('{name}')")[0][0]) for name in TABLES]
    return database, nodes


class Reader(threading.Thread):
    """Samples until it is told to stop; an error ends it and is kept."""

    def __init__(self, server: PageServer, database: int, nodes: list[int], seed: int) -> None:
        super().__init__(daemon=True)
        self.samples: list[Sample] = []
        self.error: Exception | None = None
        self.stopping = False
        self._server, self._database, self._nodes = server, database, nodes
        self._random = random.Random(seed)

    def run(self) -> None:
        try:
            with self._server.client() as client:
                while not self.stopping:
                    self._sample(client)
        except Exception as error:
            self.error = error

    def _sample(self, client: PageClient) -> None:
        lsn = parse(str(client.status()["ready_lsn"]))
        for node in self._nodes:
            blocks = client.nblocks(1663, self._database, node, 0, lsn)
            for _ in range(3):
                block = self._random.randrange(blocks)
                page = client.get_page(1663, self._database, node, 0, block, lsn)
                assert pages.lsn(memoryview(page)) <= lsn
                self.samples.append((node, block, lsn, page))


def check(server: PageServer, database: int, samples: list[Sample]) -> None:
    with server.client() as client:
        for node, block, lsn, page in samples:
            again = client.get_page(1663, database, node, 0, block, lsn)
            assert again == page, f"block {block} of {node} at {lsn:X} has changed"
            view = memoryview(page)
            stored = int.from_bytes(page[8:10], "little")
            assert pages.is_new(view) or page_checksum.checksum(view, block) == stored


def test_same_page_at_the_same_lsn(postgres, page_server):
    primary = postgres(18, {"checkpoint_timeout": "30s", "max_wal_size": "64MB"})
    primary.pgbench("-i", "-s", "3")
    server = page_server(
        primary, "--set", "memory_bytes_max=67108864", "--set", "flush_seconds_max=0.5"
    )
    database, nodes = relations(primary)
    load = primary.start_pgbench("-T", str(SECONDS), "-c", "3")
    readers = [Reader(server, database, nodes, seed) for seed in (1, 2)]
    for reader in readers:
        reader.start()
    time.sleep(SECONDS)
    for reader in readers:
        reader.stopping = True
        reader.join()
        assert reader.error is None, reader.error
    assert load.wait() == 0
    samples = [sample for reader in readers for sample in reader.samples]
    assert len({lsn for _, _, lsn, _ in samples}) > 20
    samples = random.Random(3).sample(samples, min(len(samples), 3000))
    check(server, database, samples)
    assert server.stop() == 0
    server.start()
    server.wait_until_ready()
    check(server, database, samples)
