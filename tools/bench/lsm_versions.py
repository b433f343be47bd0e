"""The versions that ingest makes of some WAL, taken out of the bundles that flushes wrote.

What a memtable holds goes into an L0 bundle as it is, so these are exactly the versions that the
storage engine keeps; in LSN order they are what a peer is fed with.
"""

from pathlib import Path

from engine.bundle_reader import BundleReader
from engine.page_store import PageStore
from engine.storage import Storage
from formats.chunk import ChunkKey, ChunkKind
from formats.file_name import FileKind, FileName
from tools.bench.rocksdb_peer import KEY, Versions

Page = tuple[bytes, int]  # packed chunk key, block


def ingest_all(store: PageStore, end_lsn: int) -> None:
    """Take the WAL that a store's journal has up to `end_lsn` into L0 bundles, in this thread."""
    while store.ready_lsn < end_lsn and store.ingest_step():
        while store.versions.frozen:
            store.flush_step()
    store.freeze()
    while store.flush_step():
        pass
    if store.durable_lsn < end_lsn:
        raise ValueError(f"the WAL ends before {end_lsn:X}: durable to {store.durable_lsn:X}")


def versions_in(directory: Path) -> Versions:
    """All versions of the L0 bundles of a closed data directory, in LSN order."""
    found: list[tuple[int, bytes, bytes]] = []
    for path in (directory / "layers").iterdir():
        if FileName.parse(path.name).kind == FileKind.L0:
            found += _versions_of(BundleReader(Storage(), path))
    found.sort(key=lambda item: item[0])
    return Versions([key for _, key, _ in found], [value for _, _, value in found])


def _versions_of(reader: BundleReader) -> list[tuple[int, bytes, bytes]]:
    """(LSN, key, payload) of a bundle's versions."""
    directory = reader.directory
    chunks = {directory.number(row): directory.key(row) for row in range(directory.count)}
    found = []
    for number in range(reader.table.count):
        raw = memoryview(reader.read_frame(number))
        count = int.from_bytes(raw[:4], "little")
        layers, blocks = raw[4:][: 4 * count].cast("I"), raw[4 + 4 * count :][: 4 * count].cast("I")
        lsns = raw[4 + 8 * count :][: 8 * count].cast("Q")
        ends = raw[4 + 16 * count :][: 4 * count].cast("I")
        payloads, start = raw[4 + 20 * count :], 0
        for layer, block, lsn, end in zip(layers, blocks, lsns, ends, strict=True):
            key = KEY.pack(chunks[layer], block, lsn)
            found.append((lsn, key, bytes(payloads[start:end])))
            start = end
    return found


def pages_of(versions: Versions) -> list[Page]:
    """The relation pages that have versions, in order."""
    pages = {key[:22] for key in versions.keys if key[0] == ChunkKind.REL}
    return [(page[:18], int.from_bytes(page[18:], "big")) for page in sorted(pages)]


def describe(key: bytes) -> str:
    """A packed chunk key as people read it."""
    return str(ChunkKey.unpack(key))
