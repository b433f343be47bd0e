"""`compaction-merge`: L0 bundles into L1, beside the zstandard library alone on the same frames.

The bundles are those of flushes of pgbench's WAL. Ours reads, checks, decompresses, merges,
compresses and writes them, and fsyncs what it wrote; the library decompresses the same frames, held
in memory, and compresses them again at the level that L1 has, in its fastest way: many in a call.
Both in raw bytes of the input a second of one core's time; each has one thread.
"""

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from engine.bundle_merge import merge_bundles
from engine.bundle_reader import BundleReader
from engine.bundle_writer import BundleWriter
from engine.merge_plan import MergeInput
from engine.page_store import PageStore
from engine.recovery import Paths
from engine.storage import Bytes, Storage
from formats import layer_file
from formats.file_name import FileKind, FileName
from tools.bench.bench import MEMORY_BYTES_MAX, MIB, Bench
from tools.bench.generated_wal import GeneratedWal
from tools.bench.row import Bar, Row

NAME = "compaction-merge"
ROUNDS = 5
PARTS = 6
BUNDLES_MAX = 8
BAR = Bar(0.5)
FRAMES_A_CALL = 64


def run(bench: Bench) -> list[Row]:
    return [_run(bench, wal) for wal in bench.wals]


def _run(bench: Bench, wal: GeneratedWal) -> Row:
    with bench.step(f"flush {wal.size_bytes / MIB:.0f} MiB of WAL with {wal.name}"):
        layers = flush_in_parts(bench.workspace.copy(wal.page_store, "merge"), wal)
    row = compare(layers, wal.name, bench.in_turns)
    shutil.rmtree(layers.parent)
    return row


def flush_in_parts(directory: Path, wal: GeneratedWal) -> Path:
    """Ingest all WAL, with a flush for each of PARTS, or more; returns the directory of layers."""
    store = PageStore(directory, MEMORY_BYTES_MAX)
    try:
        part = wal.size_bytes // PARTS
        bound = wal.start_lsn + part
        while store.ingest_step():
            if store.ready_lsn >= bound:
                store.freeze()
                bound += part
            while store.flush_step():
                pass
    finally:
        store.close()
    return Paths(directory).layers


InTurns = Callable[[int, Callable[[], float], Callable[[], float]], list[tuple[float, float]]]


def compare(layers: Path, variant: str, in_turns: InTurns) -> Row:
    """The row of one directory of layers, whose newest L0 bundles are merged."""
    newest = sorted(layers.glob("l0-*"), reverse=True)[:BUNDLES_MAX]
    readers = [BundleReader(Storage(), path) for path in newest]
    raw_bytes = sum(
        reader.table.raw_length(number)
        for reader in readers
        for number in range(reader.table.count)
    )
    wall: list[float] = []
    stored: list[int] = []
    batches = list(_frames(readers))
    pairs = in_turns(
        ROUNDS,
        lambda: raw_bytes / MIB / _merge(layers, readers, wall, stored),
        lambda: raw_bytes / MIB / _library(batches),
    )
    stored_before = sum(reader.bytes_total for reader in readers)
    notes = [
        f"{len(readers)} bundles, {raw_bytes / MIB:,.0f} MB raw, stored {stored_before / MIB:,.1f}"
        f" MB in L0 and {stored[0] / MIB:,.1f} MB in L1; by the clock, with fsync: "
        f"{raw_bytes / MIB / min(wall):,.0f} MB/s at best"
    ]
    peer = f"zstandard, level {layer_file.ZSTD_LEVEL}, the same frames"
    return Row.of_pairs(NAME, variant, "MB/s of a core", peer, pairs, BAR, notes)


def _merge(
    layers: Path, readers: list[BundleReader], wall: list[float], stored: list[int]
) -> float:
    """Seconds of a core for one merge of all."""
    directory = layers.parent / "merged"
    directory.mkdir()
    sequence = itertools.count(1)
    footer = readers[0].footer

    def create_bundle() -> BundleWriter:
        name = FileName(FileKind.L1, 0, 1, next(sequence))
        ids = (footer.tenant, footer.timeline, footer.postgres_version)
        return BundleWriter(Storage(), directory, name, *ids)

    began, cpu_began = time.perf_counter(), time.process_time()
    inputs = [MergeInput(reader, range(reader.directory.count)) for reader in readers]
    outputs = [output.info for output in merge_bundles(inputs, create_bundle)]
    cpu = time.process_time() - cpu_began
    wall.append(time.perf_counter() - began)
    stored.append(sum(info.bytes_total for info in outputs if info is not None))
    shutil.rmtree(directory)
    return cpu


def _frames(readers: list[BundleReader]) -> Iterator[tuple[list[Bytes], bytes]]:
    """Batches of compressed frames, and their raw lengths as u64."""
    for reader in readers:
        for first in range(0, reader.table.count, FRAMES_A_CALL):
            numbers = range(first, min(first + FRAMES_A_CALL, reader.table.count))
            frames: list[Bytes] = []
            lengths = b""
            for number in numbers:
                stored = reader.read_stored(number, number + 1)
                length = reader.table.raw_length(number)
                if stored[1] == layer_file.Codec.ZSTD:
                    frames.append(stored[layer_file.FRAME_HEADER_BYTES :])
                    lengths += length.to_bytes(8, "little")
            yield frames, lengths


def _library(batches: list[tuple[list[Bytes], bytes]]) -> float:
    """Seconds of a core to decompress and compress all."""
    decompressor: Any = zstandard.ZstdDecompressor()
    compressor: Any = layer_file.compressor(FileKind.L1)
    began = time.process_time()
    for frames, lengths in batches:
        raw = decompressor.multi_decompress_to_buffer(frames, decompressed_sizes=lengths)
        compressor.multi_compress_to_buffer(raw)
    return time.process_time() - began
