"""A flipped byte anywhere in a real server's directory: found by verify, and never a wrong page.

Bytes of the LMDB files that hold nothing (free space, the older of two meta pages) are the one
exception: where verify finds no fault there, everything that the index says must be unchanged.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.directory_check import check_directory
from engine.errors import RequestError
from engine.index import Index
from engine.page_store import PageStore
from engine.storage import Storage
from formats.errors import CorruptionError
from formats.pagestream import GET_PAGE, PAGE_REPLY_BYTES, PageBatch
from tools.page_server import PageServer
from tools.postgres import Server

FLIPS_PER_FILE = 8
MEMORY_BYTES = 64 << 20


@pytest.fixture
def directory(postgres: Callable[..., Server], page_server: Callable[..., PageServer]) -> Path:
    """A directory with base backup images, several L0 bundles, a journal and an index."""
    primary = postgres(18)
    primary.pgbench("-i", "-s", "1")
    server = page_server(primary, "--set", "flush_seconds_max=0.5")
    primary.pgbench("-T", "3", "-c", "2")
    assert server.stop() == 0
    return server.data_dir


def faults(root: Path, work: Path) -> list[str]:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    return [str(found) for found in check_directory(Storage(), root, work) if found.is_fault]


def flip(path: Path, position: int, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))


def index_content(root: Path) -> dict[str, dict[bytes, bytes]]:
    index = Index(root / "index")
    try:
        return index.dump()
    finally:
        index.close()


def test_verify_finds_every_flipped_byte(directory: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert faults(directory, work) == []
    said_by_index = index_content(directory)
    choose = random.Random(20)
    missed = []
    for path in sorted(p for p in directory.rglob("*") if p.is_file() and p.stat().st_size):
        if path.name in ("lock.mdb", "pageserver.toml"):  # LMDB's reader table; the operator's own
            continue
        for _ in range(FLIPS_PER_FILE):
            position, bit = choose.randrange(path.stat().st_size), choose.randrange(8)
            flip(path, position, bit)
            if not faults(directory, work):
                missed.append((path.name, position))
                assert path.name == "data.mdb", f"{path} byte {position}, bit {bit}: not found"
                assert index_content(directory) == said_by_index
            flip(path, position, bit)
    assert faults(directory, work) == []


def read_everything(store: PageStore) -> tuple[dict[tuple[int, ...], bytes], int]:
    """Every page at the ready LSN that can be read, and how many cannot."""
    pages, errors = {}, 0
    lsn = store.ready_lsn
    batch = PageBatch(1, memoryview(bytearray(4096)), memoryview(bytearray(PAGE_REPLY_BYTES)))
    out = memoryview(bytearray(8192))
    for spc, db, rel, fork, blocks in store.relations(lsn):
        for block in range(blocks):
            batch.load(GET_PAGE, spc, db, rel, fork, block, lsn)
            batch.lsn[0], batch.out_pos[0] = lsn, 0
            store.get_pages(batch, 1, out)
            if batch.status[0]:
                errors += 1
            else:
                pages[spc, db, rel, fork, block] = bytes(out)
    return pages, errors


def test_read_of_damaged_bytes_is_an_error_and_never_a_wrong_page(
    directory: Path, tmp_path: Path
) -> None:
    store = PageStore(directory, MEMORY_BYTES)
    right, errors = read_everything(store)
    store.close()
    assert errors == 0
    assert len(right) > 3000
    choose = random.Random(21)
    failed_reads = 0
    for path in sorted((directory / "layers").iterdir()):
        for _ in range(3):
            position, bit = choose.randrange(path.stat().st_size), choose.randrange(8)
            flip(path, position, bit)
            try:
                store = PageStore(directory, MEMORY_BYTES)
                try:
                    found, errors = read_everything(store)
                finally:
                    store.close()
            except (CorruptionError, RequestError):
                failed_reads += 1
            else:
                failed_reads += errors > 0
                assert all(right[key] == page for key, page in found.items())
                assert len(found) + errors == len(right)
            flip(path, position, bit)
    assert failed_reads > 0
