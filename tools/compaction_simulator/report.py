"""The simulator's tables: what is run for each, and how a row reads.

Rows are independent of each other and seeded: a part of a table says what the whole one does.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from engine.compaction_policy import Policy
from tools.compaction_simulator.measured import Measured, mean, percentile
from tools.compaction_simulator.simulation import Simulation
from tools.compaction_simulator.strategy import (
    Leveled,
    NeonBottommost,
    NeonLegacy,
    Strategy,
    Tiered,
)
from tools.compaction_simulator.workload import (
    GROWTH,
    TINY_TABLES,
    UNIFORM,
    WORKLOADS,
    Workload,
)

Row = dict[str, Any]
Run = tuple[Workload, Strategy]

HOURS = 3600
STRATEGIES: tuple[Callable[[], Strategy], ...] = (
    Strategy,
    Tiered,
    Leveled,
    NeonLegacy,
    NeonBottommost,
)


class RewriteLate(Policy):
    """Files are rewritten when less than a third is live."""

    def is_worth_rewriting(self, bytes_live: int, bytes_total: int) -> bool:
        return 0 < bytes_live < bytes_total / 3


def _variants() -> Iterator[Strategy]:
    yield Strategy("as it is")
    for layers in (4, 5, 8):
        yield Strategy(f"layers_max = {layers}", Policy(layers_max=layers))
    for bundles in (2, 4, 8):
        name = f"l0_bundles_merged_min = {bundles}"
        yield Strategy(name, Policy(l0_bundles_merged_min=bundles))
    for debt in (1.0, 4.0):
        yield Strategy(f"debt_per_image_byte = {debt}", Policy(debt_per_image_byte=debt))
    for mib in (8,):
        yield Strategy(f"own_file_bytes_min = {mib} MiB", Policy(own_file_bytes_min=mib << 20))
    yield Strategy("rewritten below a third", RewriteLate())


def runs(table: str) -> list[Run]:
    """What a table shows. A table is a workload's name, `growth` or `parameters`."""
    if table == "growth":
        return [(load, make()) for load in GROWTH for make in STRATEGIES]
    if table == "parameters":
        varied = [(replace(UNIFORM, days=20), strategy) for strategy in _variants()]
        late = Strategy("rewritten below a third", RewriteLate())
        return varied + [(TINY_TABLES, Strategy("as it is")), (TINY_TABLES, late)]
    return [(load, make()) for load in WORKLOADS if load.name == table for make in STRATEGIES]


TABLES = (*(workload.name for workload in WORKLOADS), "growth", "parameters")


def row(run: Run) -> Row:
    """Simulate, and say what came out."""
    workload, strategy = run
    return describe(workload, strategy, Simulation(workload, strategy).run())


def describe(workload: Workload, strategy: Strategy, measured: Measured) -> Row:
    flushed = measured.flushed
    return {
        "workload": workload.name,
        "policy": strategy.name,
        "written": round(measured.amplification, 1),
        "merges": round(measured.written["merge"] / flushed, 1),
        "images": round(measured.written["image"] / flushed, 1),
        "rewriting": round(measured.written["rewrite"] / flushed, 1),
        "by quarter": " ".join(f"{part:.1f}" for part in measured.trend),
        "space": round(mean(measured.space), 2),
        "space max": round(max(measured.space), 2),
        "layers": round(mean(measured.layers), 1),
        "p99": percentile(measured.layers, 0.99),
        "max": max(measured.layers + measured.worst),
        "L0": round(mean(measured.l0_counts), 1),
        "L0 max": max(measured.l0_counts),
        "busy h": round(measured.busy_seconds_max / HOURS, 1),
        "held h": round(measured.seconds_slowed / HOURS, 1),
    }


def markdown(rows: Sequence[Row]) -> str:
    """A table, its columns aligned."""
    names = list(rows[0])
    cells = [[str(each[name]) for name in names] for each in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    numeric = [not isinstance(rows[0][name], str) for name in names]

    def line(texts: Sequence[str]) -> str:
        padded = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(texts, widths, numeric, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = (
        "-" * (width + 1) + ":" if right else "-" * (width + 2)
        for width, right in zip(widths, numeric, strict=True)
    )
    return "\n".join([line(names), f"|{'|'.join(rule)}|", *map(line, cells)])
