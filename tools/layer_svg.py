"""Rectangles of the plane of keys and LSNs -> SVG text. Pure: no files.

      LSN ^   ┌──┐        one column a stripe, in the order of chunk keys; LSNs grow upwards;
          │┌─┐│  │ ┌─┐    a delta layer is a box from its first to its last LSN, an image layer a
          ││ ││  │━│━│    line at its one
          └┴─┴┴──┴─┴─┴> stripes

Stripes with one layer are narrow. Where the others have no three pixels, or there are too many
boxes, cells are drawn in their place, darker where more layers of a stripe lie one over the other:
the text is bounded, however many.
Points and leases are marks at their LSNs, on the right, with as many names as there is room for.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, groupby
from typing import NamedTuple

from formats.lsn import show

WIDTH, HEIGHT = 1280, 800
LEFT, RIGHT, TOP, BOTTOM = 130, 150, 92, 152
ACROSS, DOWN = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
BOXES_MAX = 4000
TITLES_MAX = 1500
"""With more boxes than that none says what it is when pointed at."""
COLUMN_MIN = 3  # pixels
CELL = 4  # pixels, both ways
QUIET_SHARE = 0.2  # of the width, for all quiet columns together
SHADES = ((0.5, 0.3), (1.5, 0.5), (3.5, 0.72), (float("inf"), 0.95))
"""Layers of a stripe in a cell on average, and how dark it is up to there."""
IMAGE_FAINTEST = 0.6
NAME_GAP = 24  # pixels between names below the axis
NAME_LENGTH_MAX = 30
MARK_GAP = 13  # pixels between names of points and leases
MARKS_MAX = 400
MARK_LENGTH_MAX = 20
TICKS = 8
INK, FAINT, GREY, PAPER, ALARM = "#1f2933", "#616e7c", "#c9ced6", "#ffffff", "#b3261e"
COLOURS = {"L1": "#3a9188", "L0": "#e0982f", "image": "#243b6b"}
"""Of each kind of layer, in the order in which they are drawn."""
MARKS = {"point": "#7b3fa0", "lease": "#2f6fb7"}


class Rectangle(NamedTuple):
    """A layer. `column`: its stripe's place; LSNs lsn_start … lsn_end - 1."""

    kind: str
    column: int
    lsn_start: int
    lsn_end: int
    text: str


class Mark(NamedTuple):
    """A point or a lease."""

    kind: str
    lsn: int
    name: str


@dataclass(frozen=True)
class Drawing:
    """All that a drawing shows."""

    title: str
    rectangles: Sequence[Rectangle]
    names: Mapping[int, str]
    """Column → the name of what begins there."""
    columns: int
    horizon: int = 0
    """0: there is none."""
    marks: Sequence[Mark] = ()
    quiet: frozenset[int] = frozenset()
    """Columns that are narrow: there is little to see in them."""


class _Scale:
    """LSNs and columns to pixels."""

    def __init__(self, drawing: Drawing) -> None:
        starts = [each.lsn_start for each in drawing.rectangles]
        ends = [each.lsn_end for each in drawing.rectangles]
        marks = [drawing.horizon] if drawing.horizon else []
        marks += [mark.lsn for mark in drawing.marks]
        self.low = min([*starts, *marks], default=0)
        self.high = max([*ends, *marks, self.low + 1])
        columns = range(max(1, drawing.columns))
        busy = len(columns) - len(drawing.quiet)
        wide = max(1.0, (1 / QUIET_SHARE - 1) * len(drawing.quiet) / max(1, busy))
        widths = [1.0 if column in drawing.quiet else wide for column in columns]
        self._edges = [0.0, *accumulate(widths)]
        self.widest = max(widths) * ACROSS / self._edges[-1]

    def x(self, column: int) -> float:
        return LEFT + self._edges[column] * ACROSS / self._edges[-1]

    def y(self, lsn: int) -> float:
        return TOP + DOWN - (lsn - self.low) * DOWN / (self.high - self.low)


def svg(drawing: Drawing) -> str:
    """The drawing as an SVG document."""
    scale = _Scale(drawing)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif" font-size="12" '
        f'fill="{INK}" shape-rendering="crispEdges">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
        f'<text x="{LEFT}" y="34" font-size="18">{escape(drawing.title)}</text>',
        *_legend(drawing, scale),
        *_lsn_axis(scale),
        *_layers(drawing, scale),
        *_names(drawing, scale),
        *_horizon(drawing, scale),
        *_marks(drawing, scale),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend(drawing: Drawing, scale: _Scale) -> Iterator[str]:
    counts = Counter(each.kind for each in drawing.rectangles)
    x = LEFT
    for kind, colour in COLOURS.items():
        text = f"{kind}: {counts[kind]:,} layers"
        height, y = (3, 63) if kind == "image" else (12, 58)
        yield f'<rect x="{x}" y="{y}" width="20" height="{height}" fill="{colour}"/>'
        yield f'<text x="{x + 27}" y="69">{text}</text>'
        x += 55 + 8 * len(text)
    if drawing.horizon:
        yield f'<path d="M{x} 64h24" stroke="{ALARM}" stroke-width="2" stroke-dasharray="6 4"/>'
        text = f"horizon {show(drawing.horizon)}"
        yield f'<text x="{x + 31}" y="69">{text}</text>'
        x += 55 + 8 * len(text)
    for kind, colour in MARKS.items():
        if count := sum(mark.kind == kind for mark in drawing.marks):
            text = f"{count:,} {kind}" + ("s" if count > 1 else "")
            yield f'<path d="M{x} 64l8 -5v10z" fill="{colour}"/>'
            yield f'<text x="{x + 14}" y="69">{text}</text>'
            x += 40 + 8 * len(text)
    if not _is_fine(drawing, scale):
        note = "the darker, the more layers of a stripe"
        yield f'<text x="{WIDTH - RIGHT}" y="34" text-anchor="end" fill="{FAINT}">{note}</text>'


def _lsn_axis(scale: _Scale) -> Iterator[str]:
    for tick in range(TICKS + 1):
        lsn = scale.low + (scale.high - scale.low) * tick // TICKS
        y = round(scale.y(lsn))
        yield f'<path d="M{LEFT - 6} {y}H{WIDTH - RIGHT}" stroke="{GREY}"/>'
        yield f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{show(lsn)}</text>'
    yield f'<text x="{LEFT - 12}" y="{TOP - 14}" text-anchor="end" font-weight="bold">LSN</text>'


def _is_fine(drawing: Drawing, scale: _Scale) -> bool:
    """Whether there is room for a box a layer."""
    return scale.widest >= COLUMN_MIN and len(drawing.rectangles) <= BOXES_MAX


def _layers(drawing: Drawing, scale: _Scale) -> Iterator[str]:
    is_fine = _is_fine(drawing, scale)
    for kind, colour in COLOURS.items():
        rectangles = [each for each in drawing.rectangles if each.kind == kind]
        if rectangles and is_fine:
            yield f'<g fill="{colour}" fill-opacity="{0.95 if kind == "image" else 0.62}">'
            yield from _boxes(rectangles, scale, len(drawing.rectangles) <= TITLES_MAX)
            yield "</g>"
        elif rectangles:
            faintest = IMAGE_FAINTEST if kind == "image" else 0.0
            yield from _cells(rectangles, scale, colour, faintest)


def _boxes(rectangles: Sequence[Rectangle], scale: _Scale, has_titles: bool) -> Iterator[str]:
    """A box a layer, with a gap of a pixel between neighbours."""
    for each in rectangles:
        left = round(scale.x(each.column))
        right = max(left + 1, round(scale.x(each.column + 1)) - 1)
        bottom = round(scale.y(each.lsn_start)) - 1
        if each.kind == "image":
            top, bottom = bottom - 1, bottom + 2
        else:
            top = min(round(scale.y(each.lsn_end)), bottom - 1)
        place = f'x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"'
        title = f"><title>{escape(each.text)}</title></rect>" if has_titles else "/>"
        yield f"<rect {place}{title}"


def _cells(
    rectangles: Sequence[Rectangle], scale: _Scale, colour: str, faintest: float
) -> Iterator[str]:
    """Cells of a raster, neighbours of one shade in one stroke, a path for each shade."""
    across, down = ACROSS // CELL, DOWN // CELL + 1
    begins = [[0.0] * (down + 1) for _ in range(across)]
    for each in rectangles:
        first = int((scale.x(each.column) - LEFT) / CELL)
        last = max(first + 1, int((scale.x(each.column + 1) - LEFT) / CELL))
        top = int((scale.y(each.lsn_end) - TOP) / CELL)
        bottom = max(top + 1, round((scale.y(each.lsn_start) - TOP) / CELL))
        share = min(1.0, (scale.x(each.column + 1) - scale.x(each.column)) / CELL)
        for column in begins[first:last]:
            column[top] += share
            column[bottom] -= share
    sums = [list(accumulate(column)) for column in begins]
    strokes: dict[float, list[str]] = {}
    for row in range(down):
        shades = (_shade(column[row]) for column in sums)
        x = LEFT
        for shade, cells in groupby(shades):
            width = CELL * len(list(cells))
            if shade:
                y = TOP + row * CELL + CELL // 2
                strokes.setdefault(shade, []).append(f"M{x} {y}h{width}")
            x += width
    for shade, parts in strokes.items():
        style = f'stroke="{colour}" stroke-opacity="{max(shade, faintest)}" stroke-width="{CELL}"'
        yield f'<path {style} d="{"".join(parts)}"/>'


def _shade(layers: float) -> float:
    return next(shade for most, shade in SHADES if layers <= most) if layers > 1e-9 else 0.0


def _names(drawing: Drawing, scale: _Scale) -> Iterator[str]:
    """What begins at a column, below the axis: as many names as there is room for."""
    bottom = TOP + DOWN
    named: list[int] = []
    for column, name in sorted(
        drawing.names.items(), key=lambda item: (item[0] in drawing.quiet, item[0])
    ):
        x = round(scale.x(column))
        if any(abs(x - other) < NAME_GAP for other in named):
            continue
        named.append(x)
        short = name if len(name) <= NAME_LENGTH_MAX else name[: NAME_LENGTH_MAX - 1] + "…"
        yield f'<path d="M{x} {bottom}v6" stroke="{INK}"/>'
        at = f"translate({x + 4} {bottom + 16}) rotate(-38)"
        style = f'font-size="11" text-anchor="end" transform="{at}"'
        yield f"<text {style}>{escape(short)}</text>"
    left_out = len(drawing.names) - len(named)
    yield f'<path d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="{INK}"/>'
    shown = f", {left_out:,} names left out" if left_out else ""
    style = f'x="{WIDTH - RIGHT}" y="{HEIGHT - 10}" text-anchor="end" font-weight="bold"'
    count = f"{drawing.columns:,} stripes of {len(drawing.names):,} chunks{shown}"
    yield f"<text {style}>{count}</text>"


def _horizon(drawing: Drawing, scale: _Scale) -> Iterator[str]:
    if drawing.horizon:
        y = round(scale.y(drawing.horizon))
        style = f'stroke="{ALARM}" stroke-width="2" stroke-dasharray="6 4"'
        yield f'<path d="M{LEFT - 6} {y}H{WIDTH - RIGHT}" {style}/>'


def _marks(drawing: Drawing, scale: _Scale) -> Iterator[str]:
    """Points and leases, from the newest down: a line across, a mark, and a name if it fits."""
    end = WIDTH - RIGHT
    free, left_out = float("-inf"), 0
    shown = sorted(drawing.marks, key=lambda mark: -mark.lsn)
    if len(shown) > MARKS_MAX:
        shown = shown[:: -(-len(shown) // MARKS_MAX)]
    for mark in shown:
        y, colour = round(scale.y(mark.lsn)), MARKS[mark.kind]
        title = f"<title>{escape(f'{mark.kind} {mark.name} at {show(mark.lsn)}')}</title>"
        style = f'stroke="{colour}" stroke-opacity="0.7" stroke-dasharray="1 3"'
        yield f'<path d="M{LEFT} {y}H{end}" {style}/>'
        yield f'<path d="M{end} {y}l8 -5v10z" fill="{colour}">{title}</path>'
        if y < free:
            left_out += 1
            continue
        free = y + MARK_GAP
        name = mark.name
        short = name if len(name) <= MARK_LENGTH_MAX else name[: MARK_LENGTH_MAX - 1] + "…"
        place = f'x="{end + 12}" y="{y + 4}" font-size="11" fill="{colour}"'
        yield f"<text {place}>{escape(short)}</text>"
    left_out += len(drawing.marks) - len(shown)
    if left_out:
        style = f'x="{end + 12}" y="{TOP + DOWN + 16}" font-size="11" fill="{FAINT}"'
        yield f"<text {style}>{left_out:,} names left out</text>"
