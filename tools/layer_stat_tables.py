"""`layertool stat` for people: tables of files and of chunks, and what they come to."""

from collections.abc import Iterator

from rich.filesize import decimal
from rich.table import Table

from formats.file_name import FileKind
from tools.layer_stat import ChunkStat, DirectoryStat

CHUNKS_SHOWN_MAX = 40
_KINDS = {FileKind.L0: "L0", FileKind.L1: "L1", FileKind.IMAGE: "image"}
_CHUNK_COLUMNS = ("stripes", "layers", *_KINDS.values(), "debt", "debt versions",
                  "a read: mean", "p99", "max")  # fmt: skip


def tables(stat: DirectoryStat) -> Iterator[Table]:
    files = _table("files", "kind", "files", "bytes", "dead", "written")
    for kind, found in stat.files.items():
        sizes = (found.bytes_total, found.bytes_dead, found.bytes_written)
        files.add_row(_KINDS[kind], f"{found.files:,}", *map(decimal, sizes))
    yield files
    chunks = _table("layers, by chunk, the worst first", "chunk", *_CHUNK_COLUMNS)
    for key, chunk in stat.worst_first()[:CHUNKS_SHOWN_MAX]:
        chunks.add_row(key.name, *_cells(chunk))
    chunks.add_section()
    chunks.add_row(f"all {len(stat.chunks):,} chunks", *_cells(stat.total))
    yield chunks


def lines(stat: DirectoryStat) -> Iterator[str]:
    hidden = len(stat.chunks) - CHUNKS_SHOWN_MAX
    if hidden > 0:
        yield f"{hidden:,} more chunks are in the sum; --json has them all"
    amplification = stat.write_amplification
    factor = "no flush yet" if amplification is None else f"{amplification:.2f}"
    since = stat.written_from_serial
    yield (
        f"write amplification: {factor}, without {decimal(stat.base_backup_bytes)} of the base "
        f"backup{'' if since == 1 else f', since entry {since} of the manifest'}"
    )


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", box=None)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cells(chunk: ChunkStat) -> list[str]:
    return [
        f"{chunk.stripes:,}",
        f"{chunk.layers:,}",
        *(decimal(chunk.bytes_by_kind[kind]) for kind in _KINDS),
        decimal(chunk.debt_bytes),
        f"{chunk.debt_versions:,}",
        f"{chunk.depth_mean:.1f}",
        f"{chunk.depth_percentile(0.99)}",
        f"{chunk.depth_max}",
    ]
