"""Rectangles of the plane of keys and LSNs -> SVG text. Pure: no files.

      LSN ^   ┌──┐        one column a stripe, in the order of chunk keys; LSNs grow upwards;
          │┌─┐│  │ ┌─┐    a delta layer is a box from its first to its last LSN, an image layer a
          ││ ││  │━│━│    line at its one
          └┴─┴┴──┴─┴─┴> stripes

Where a stripe has no three pixels, or there are too many boxes, cells are drawn in their place,
darker where more layers of a stripe lie one over the other: the text is bounded, however many.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, groupby
from typing import NamedTuple

from formats.lsn import show

WIDTH, HEIGHT = 1280, 800
LEFT, RIGHT, TOP, BOTTOM = 130, 30, 92, 152
ACROSS, DOWN = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
BOXES_MAX = 4000
TITLES_MAX = 1500
"""With more boxes than that none says what it is when pointed at."""
COLUMN_MIN = 3  # pixels
CELL = 4  # pixels, both ways
SHADES = ((0.5, 0.3), (1.5, 0.5), (3.5, 0.72), (float("inf"), 0.95))
"""Layers of a stripe in a cell on average, and how dark it is up to there."""
IMAGE_FAINTEST = 0.6
NAME_GAP = 24  # pixels between names below the axis
NAME_LENGTH_MAX = 30
TICKS = 8
INK, FAINT, GREY, PAPER, ALARM = "#1f2933", "#616e7c", "#c9ced6", "#ffffff", "#b3261e"
COLOURS = {"L1": "#3a9188", "L0": "#e0982f", "image": "#243b6b"}
"""Of each kind of layer, in the order in which they are drawn."""


class Rectangle(NamedTuple):
    """A layer. `column`: its stripe's place; LSNs lsn_start … lsn_end - 1."""

    kind: str
    column: int
    lsn_start: int
    lsn_end: int
    text: str


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


class _Scale:
    """LSNs and columns to pixels."""

    def __init__(self, drawing: Drawing) -> None:
        starts = [each.lsn_start for each in drawing.rectangles]
        ends = [each.lsn_end for each in drawing.rectangles]
        marks = [drawing.horizon] if drawing.horizon else []
        self.low = min([*starts, *marks], default=0)
        self.high = max([*ends, *marks, self.low + 1])
        self.columns = max(1, drawing.columns)

    def x(self, column: int) -> float:
        return LEFT + column * ACROSS / self.columns

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
        *_legend(drawing),
        *_lsn_axis(scale),
        *_layers(drawing, scale),
        *_names(drawing, scale),
        *_horizon(drawing, scale),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend(drawing: Drawing) -> Iterator[str]:
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
        yield f'<text x="{x + 31}" y="69">horizon {show(drawing.horizon)}</text>'
    if not _is_fine(drawing):
        note = "the darker, the more layers of a stripe"
        yield f'<text x="{WIDTH - RIGHT}" y="69" text-anchor="end" fill="{FAINT}">{note}</text>'


def _lsn_axis(scale: _Scale) -> Iterator[str]:
    for tick in range(TICKS + 1):
        lsn = scale.low + (scale.high - scale.low) * tick // TICKS
        y = round(scale.y(lsn))
        yield f'<path d="M{LEFT - 6} {y}H{WIDTH - RIGHT}" stroke="{GREY}"/>'
        yield f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{show(lsn)}</text>'
    yield f'<text x="{LEFT - 12}" y="{TOP - 14}" text-anchor="end" font-weight="bold">LSN</text>'


def _is_fine(drawing: Drawing) -> bool:
    """Whether there is room for a box a layer."""
    width = ACROSS / max(1, drawing.columns)
    return width >= COLUMN_MIN and len(drawing.rectangles) <= BOXES_MAX


def _layers(drawing: Drawing, scale: _Scale) -> Iterator[str]:
    is_fine = _is_fine(drawing)
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
        left, right = round(scale.x(each.column)), round(scale.x(each.column + 1)) - 1
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
        share = 1 / max(1.0, scale.columns / across)
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
    free = 0.0
    left_out = 0
    for column, name in sorted(drawing.names.items()):
        x = scale.x(column)
        if x < free:
            left_out += 1
            continue
        free = x + NAME_GAP
        x = round(x)
        short = name if len(name) <= NAME_LENGTH_MAX else name[: NAME_LENGTH_MAX - 1] + "…"
        yield f'<path d="M{x} {bottom}v6" stroke="{INK}"/>'
        at = f"translate({x + 4} {bottom + 16}) rotate(-38)"
        style = f'font-size="11" text-anchor="end" transform="{at}"'
        yield f"<text {style}>{escape(short)}</text>"
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
