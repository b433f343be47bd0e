"""A row of the table: a figure of ours, its peer's, their ratio, and the bar it must reach."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Self

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Bar:
    """What a ratio must be: at least `limit`, or at most."""

    limit: float
    is_most: bool = False

    def is_met_by(self, ratio: float) -> bool:
        return ratio <= self.limit if self.is_most else ratio >= self.limit

    def __str__(self) -> str:
        return f"{'≤' if self.is_most else '≥'} {self.limit:g}"


@dataclass(frozen=True)
class Row:
    """`variant` tells rows of one name apart; `ratio` is ours / peer, None without a peer."""

    name: str
    variant: str
    ours: float
    unit: str
    peer: str
    peer_value: float | None
    ratio: float | None
    bar: Bar | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of_pairs(
        cls,
        name: str,
        variant: str,
        unit: str,
        peer: str,
        pairs: Sequence[tuple[float, float]],
        bar: Bar | None,
        notes: Iterable[str] = (),
    ) -> Self:
        """From (ours, peer) measured in turns: medians, and the median of the ratios."""
        return cls(
            name,
            variant,
            median(ours for ours, _ in pairs),
            unit,
            peer,
            median(theirs for _, theirs in pairs),
            median(ours / theirs for ours, theirs in pairs),
            bar,
            tuple(notes),
        )

    @property
    def verdict(self) -> str:
        if self.bar is None or self.ratio is None:
            return "no bar"
        return "met" if self.bar.is_met_by(self.ratio) else "MISSED"

    def as_json(self) -> dict[str, object]:
        bar = None if self.bar is None else str(self.bar)
        return asdict(self) | {"bar": bar, "verdict": self.verdict, "notes": list(self.notes)}


def write_json(rows: Sequence[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [row.as_json() for row in rows]
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def show_number(value: float | None) -> str:
    """Three digits or so, whatever the size."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def show(rows: Sequence[Row], console: Console) -> None:
    table = Table(title="The page server beside its peers")
    for heading in ("name", "ours", "peer", "ratio", "bar", ""):
        table.add_column(heading, justify="right" if heading in ("ratio", "bar") else "left")
    for row in rows:
        table.add_row(
            f"{row.name}\n[dim]{row.variant}[/dim]" if row.variant else row.name,
            f"{show_number(row.ours)} {row.unit}",
            f"{show_number(row.peer_value)}\n[dim]{row.peer}[/dim]",
            show_number(row.ratio),
            "-" if row.bar is None else str(row.bar),
            f"[red]{row.verdict}[/red]" if row.verdict == "MISSED" else row.verdict,
        )
    console.print(table)
    for row in rows:
        for note in row.notes:
            console.print(f"{row.name} {row.variant}: {note}", highlight=False)
    missed = [row for row in rows if row.verdict == "MISSED"]
    for row in missed:
        console.print(
            f"{row.name} {row.variant}: the bar is missed: {show_number(row.ratio)}, not {row.bar}",
            highlight=False,
        )
