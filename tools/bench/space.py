"""`space`: delta layers after compaction, beside the same WAL compressed as it is.

The peer is zstd, level 1, over the WAL's segments in frames of 128 KiB. The whole directory, with
the image layers of base backup and compaction, is printed beside it.
"""

import mmap
import shutil

import zstandard

from formats.file_name import FileKind, FileName
from tools.bench.bench import MEMORY_BYTES_MAX, Bench
from tools.bench.counting_storage import bytes_on_disk
from tools.bench.generated_wal import GeneratedWal
from tools.bench.row import Bar, Row
from tools.bench.settled_store import load_settled

NAME = "space"
BAR = Bar(0.5, is_most=True)
FRAME_BYTES = 128 << 10
ZSTD_LEVEL = 1


def run(bench: Bench) -> list[Row]:
    return [_run(bench, wal) for wal in bench.payload_wals]


def _run(bench: Bench, wal: GeneratedWal) -> Row:
    directory = bench.workspace.copy(wal.page_store, "space")
    with bench.step(f"{NAME}: {wal.size_bytes / 1e6:.0f} MB of WAL with {wal.name}"):
        load_settled(directory, wal.end_lsn, MEMORY_BYTES_MAX)
    sizes = dict.fromkeys(FileKind, 0)
    for path in (directory / "layers").iterdir():
        sizes[FileName.parse(path.name).kind] += path.stat().st_size
    index = bytes_on_disk(directory / "index")
    shutil.rmtree(directory)
    deltas = sizes[FileKind.L0] + sizes[FileKind.L1]
    whole = sum(sizes.values()) + index
    compressed = compressed_bytes(wal)
    images = sizes[FileKind.IMAGE]
    note = (
        f"of {wal.size_bytes / 1e6:.0f} MB of WAL; the whole directory without its journal: "
        f"{whole / 1e6:.1f} MB (deltas {deltas / 1e6:.1f}, images {images / 1e6:.1f}, "
        f"index {index / 1e6:.1f})"
    )
    peer = f"zstd -{ZSTD_LEVEL} over the WAL, frames of {FRAME_BYTES >> 10} KiB"
    return Row(NAME, wal.name, deltas / 1e6, "MB", peer, compressed / 1e6, deltas / compressed,
               BAR, (note,))  # fmt: skip


def compressed_bytes(wal: GeneratedWal) -> int:
    """Of all segments in frames that stand for themselves."""
    codec, total = zstandard.ZstdCompressor(level=ZSTD_LEVEL), 0
    for segment in wal.segments:
        with segment.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            for start in range(0, len(data), FRAME_BYTES):
                total += len(codec.compress(data[start : start + FRAME_BYTES]))
    return total
