"""What a soak run measures as it goes on, what must hold of it, and the table at its end."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.filesize import decimal
from rich.table import Table

from formats.file_name import FileKind
from tools.layer_stat import DirectoryStat

MIB = 1 << 20
LAYERS_READ_P99_MAX = 10
PROCESS_BYTES = 96 * MIB
"""Interpreter, libraries, code, thread stacks and what malloc keeps: beside the budget."""
ROWS = 10
COLUMNS = ("until", "WAL", "into layers", "amplification", "so far", "layers", "dead", "debt",
           "a read: mean", "p99", "max", "memory", "behind", "kept", "kills")  # fmt: skip


@dataclass
class LayerSample:
    """The layers at one moment."""

    seconds: float
    wal_bytes: int
    """Received since the run began."""
    l0_bytes_written: int
    layer_bytes_written: int
    layer_bytes: int
    dead_bytes: int
    debt_bytes: int
    layers_read_mean: float
    layers_read_p99: int
    layers_read_max: int


@dataclass
class Samples:
    """All samples of a run; `broken` says which invariants were found broken, and when."""

    memory_bytes_max: int
    layers: list[LayerSample] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    lag: list[tuple[float, int]] = field(default_factory=list)
    kept: list[tuple[float, int]] = field(default_factory=list)
    """WAL from the horizon to what is ready."""
    kills: list[tuple[float, str]] = field(default_factory=list)
    restart_seconds: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    _written: dict[FileKind, int] = field(default_factory=dict)
    _written_before: dict[FileKind, int] = field(default_factory=dict)
    _serial: int = 0

    def add_memory(self, seconds: float, resident_bytes: int) -> None:
        self.memory.append((seconds, resident_bytes))
        most = self.memory_bytes_max + PROCESS_BYTES
        if resident_bytes > most:
            self.breaks(
                seconds, f"{decimal(resident_bytes)} of memory, {decimal(most)} are the bound"
            )

    def add_layers(self, seconds: float, wal_bytes: int, stat: DirectoryStat) -> None:
        written = {kind: files.bytes_written for kind, files in stat.files.items()}
        if stat.written_from_serial != self._serial:  # a compacted manifest begins to count anew
            self._serial, self._written_before = stat.written_from_serial, dict(self._written)
        self._written = {
            kind: self._written_before.get(kind, 0) + count for kind, count in written.items()
        }
        total = stat.total
        p99 = total.depth_percentile(0.99)
        self.layers.append(
            LayerSample(
                seconds, wal_bytes, self._written[FileKind.L0], sum(self._written.values()),
                sum(files.bytes_total for files in stat.files.values()),
                sum(files.bytes_dead for files in stat.files.values()), total.debt_bytes,
                total.depth_mean, p99, total.depth_max,
            )
        )  # fmt: skip
        if p99 > LAYERS_READ_P99_MAX:
            self.breaks(seconds, f"{p99} layers a read (p99), {LAYERS_READ_P99_MAX} are the bound")

    def breaks(self, seconds: float, what: str) -> None:
        self.broken.append(f"at {seconds:.0f} s: {what}")

    def table(self, seconds: float) -> Table:
        """The run in tenths."""
        table = Table(box=box.SIMPLE)
        for name in COLUMNS:
            table.add_column(name, justify="right")
        before = None
        for number in range(ROWS):
            begin, end = (seconds * at / ROWS for at in (number, number + 1))
            within = [sample for sample in self.layers if begin <= sample.seconds < end]
            if not within:
                continue
            last = within[-1]
            table.add_row(
                f"{end:.0f} s",
                *_growth(before, last),
                decimal(last.layer_bytes),
                decimal(last.dead_bytes),
                decimal(last.debt_bytes),
                f"{last.layers_read_mean:.1f}",
                f"{max(sample.layers_read_p99 for sample in within)}",
                f"{max(sample.layers_read_max for sample in within)}",
                decimal(_most(self.memory, begin, end)),
                decimal(_most(self.lag, begin, end)),
                decimal(_most(self.kept, begin, end)),
                f"{sum(begin <= at < end for at, _ in self.kills)}",
            )
            before = last
        return table


def _growth(before: LayerSample | None, now: LayerSample) -> Iterable[str]:
    """WAL, bytes written, amplification since the row before and since the start."""
    wal, flushed, written = (
        (now.wal_bytes, now.l0_bytes_written, now.layer_bytes_written)
        if before is None
        else (
            now.wal_bytes - before.wal_bytes,
            now.l0_bytes_written - before.l0_bytes_written,
            now.layer_bytes_written - before.layer_bytes_written,
        )
    )
    return (
        decimal(wal),
        decimal(written),
        _ratio(written, flushed),
        _ratio(now.layer_bytes_written, now.l0_bytes_written),
    )


def _ratio(written: int, flushed: int) -> str:
    return f"{written / flushed:.2f}" if flushed > 0 else "-"


def _most(samples: list[tuple[float, int]], begin: float, end: float) -> int:
    return max((value for at, value in samples if begin <= at < end), default=0)


def resident_bytes(pid: int) -> int:
    """Memory of a process that is its own: not pages of files, which the kernel may take away.

    0 for one that is gone.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = dict(re.findall(r"^(RssAnon|RssShmem):\s+(\d+) kB$", status, re.MULTILINE))
    return 1024 * sum(int(value) for value in found.values())
