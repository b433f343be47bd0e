"""Counts of WAL records by kind, as `pg_waldump --stats=record` prints them.

    python -m tools.wal_stats DIRECTORY_OR_SEGMENTS... [--start LSN] [--end LSN]

Segments are read one after the other from the first one's start (a record that began before it is
skipped), or from `--start`, where a record must start; up to the first zeros or to `--end`, like
pg_waldump: a record that starts below `--end` counts. Exit status 1 when the WAL is damaged.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.record_batch import RecordBatch
from engine.wal_reader import WalReader
from formats import lsn, rmgr, wal_page
from formats.errors import CorruptionError
from formats.wal_page import PageHeader

CHUNK_BYTES = 1 << 18
RECORDS_MAX = 4096


@dataclass
class Kind:
    """What is counted of one kind of record; images are full-page images as they stand in WAL."""

    count: int = 0
    record_bytes: int = 0
    image_bytes: int = 0


@dataclass
class Stats:
    version: int
    start_lsn: int
    end_lsn: int
    kinds: dict[tuple[int, int], Kind] = field(default_factory=dict)

    def add(self, batch: RecordBatch, r: int) -> None:
        manager = batch.rmgr[r]
        key = manager, rmgr.opcode(manager, batch.info[r])
        first, end = batch.first_reference[r], batch.first_reference[r + 1]
        images = sum(batch.ref_image_length[i] for i in range(first, end))
        kind = self.kinds.setdefault(key, Kind())
        kind.count += 1
        kind.record_bytes += batch.record_length[r] - images
        kind.image_bytes += images

    def by_name(self) -> dict[str, Kind]:
        """Record kinds by their names, in pg_waldump's order."""
        return {rmgr.show(self.version, *key): self.kinds[key] for key in sorted(self.kinds)}


def segments(paths: Sequence[Path]) -> list[Path]:
    """The segment files meant by directories and names, in order; they must follow each other."""
    files = [
        file
        for path in paths
        for file in (path.iterdir() if path.is_dir() else [path])
        if wal_page.is_file_name(file.name)
    ]
    # A segment may exist on several timelines; the newest has it whole.
    newest = {file.name[8:]: file for file in sorted(files, key=lambda file: file.name)}
    return [newest[name] for name in sorted(newest)]


def pieces(files: Sequence[Path], skip_bytes: int) -> Iterator[memoryview]:
    for file in files:
        with file.open("rb") as stream:
            stream.seek(skip_bytes)
            skip_bytes = 0
            while piece := stream.read(CHUNK_BYTES):
                yield memoryview(piece)


def open_wal(
    paths: Sequence[Path], start_lsn: int | None = None
) -> tuple[WalReader, Iterator[memoryview]]:
    """A reader at the start, and what it is to be fed; raises as `count` does."""
    files = segments(paths)
    if not files:
        raise FileNotFoundError(f"no WAL segments in {', '.join(map(str, paths))}")
    header = PageHeader()
    with files[0].open("rb") as stream:
        header.load(memoryview(stream.read(lsn.LONG_HEADER_BYTES).ljust(lsn.LONG_HEADER_BYTES)), 0)
    if not lsn.is_segment_size(header.segment_size):
        raise CorruptionError(
            "segment size in the first page's header",
            f"{files[0]}, offset 32",
            "a power of two, 1 MiB to 1 GiB",
            header.segment_size,
        )
    first_lsn = header.lsn
    if start_lsn is not None:
        while files and first_lsn + header.segment_size <= start_lsn:
            files = files[1:]
            first_lsn += header.segment_size
    start = first_lsn if start_lsn is None else start_lsn
    version = wal_page.major_version(header.magic)
    reader = WalReader(start, header.segment_size, version=version or None, zeros_end=True)
    return reader, pieces(files, start - first_lsn)


def records(
    reader: WalReader, parts: Iterator[memoryview], end_lsn: int = lsn.LSN_MAX
) -> Iterator[tuple[RecordBatch, int]]:
    """Each record that starts below `end_lsn`: a batch, and its row there until the next one."""
    batch = RecordBatch(RECORDS_MAX, 2 * RECORDS_MAX)
    for part in parts:
        reader.feed(reader.lsn, part)
        while reader.decode(batch):
            for r in range(batch.count):
                if batch.lsn_start[r] >= end_lsn:
                    return
                yield batch, r
        if reader.at_end:
            return


def count(paths: Sequence[Path], start_lsn: int | None = None, end_lsn: int = lsn.LSN_MAX) -> Stats:
    """Count the records of these segments; raises CorruptionError, after which nothing is known."""
    reader, parts = open_wal(paths, start_lsn)
    stats = Stats(reader.version, reader.end_lsn, reader.end_lsn)
    for batch, r in records(reader, parts, end_lsn):
        stats.add(batch, r)
        stats.end_lsn = batch.lsn_end[r]
    return stats


def show(stats: Stats) -> Iterator[str]:
    yield (
        f"WAL of PostgreSQL {stats.version} between {lsn.show(stats.start_lsn)}"
        f" and {lsn.show(stats.end_lsn)}"
    )
    layout = "{:<32} {:>12} {:>16} {:>16} {:>16}"
    yield layout.format("Type", "N", "Record size", "FPI size", "Combined size")
    total = Kind()
    for name, kind in stats.by_name().items():
        total.count += kind.count
        total.record_bytes += kind.record_bytes
        total.image_bytes += kind.image_bytes
        yield layout.format(name, *_numbers(kind))
    yield layout.format("Total", *_numbers(total))


def _numbers(kind: Kind) -> tuple[int, int, int, int]:
    combined = kind.record_bytes + kind.image_bytes
    return kind.count, kind.record_bytes, kind.image_bytes, combined


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.wal_stats", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, metavar="DIRECTORY_OR_SEGMENT")
    parser.add_argument("--start", type=lsn.parse, metavar="LSN")
    parser.add_argument("--end", type=lsn.parse, metavar="LSN", default=lsn.LSN_MAX)
    options = parser.parse_args(arguments)
    try:
        stats = count(options.paths, options.start, options.end)
    except CorruptionError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(show(stats)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
