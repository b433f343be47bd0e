"""The space that each retained LSN alone holds back, beside what the collector would let go.

The oracle drops one LSN after the other and asks which layers would be needed then.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import garbage
from engine.held_space import SpaceCount
from engine.stripe_layers import asked_for, newest_generation
from formats.file_name import FileKind, FileName
from formats.index_value import LayerEntry, sort_newest_first
from formats.layer_file import LayerKind

LSNS = st.integers(1, 12)
RETAINED = st.lists(LSNS, max_size=5)
NAME = FileName(FileKind.L1, 0, 1, 1)
KINDS = st.sampled_from((LayerKind.DELTA, LayerKind.DELTA, LayerKind.IMAGE, LayerKind.FUZZY_IMAGE))


@st.composite
def layers(draw: st.DrawFn) -> LayerEntry:
    kind, start = draw(KINDS), draw(LSNS)
    length = draw(st.integers(1, 6)) if kind == LayerKind.DELTA else 1
    return LayerEntry(
        start, start + length, NAME, kind, 0, 1, 0, 0, 1, draw(st.integers(1, 100)), 1
    )


STRIPES = st.lists(
    st.tuples(
        st.lists(layers(), max_size=8).map(sort_newest_first), st.lists(LSNS, max_size=2)
    ),
    max_size=3,
)  # fmt: skip
Stripes = list[tuple[list[LayerEntry], list[int]]]


def bytes_needed(stripes: Stripes, retained: list[int], horizon: int) -> int:
    total = 0
    for entries, cuts in stripes:
        images = [each for each in entries if each.kind != LayerKind.DELTA]
        deltas = [each for each in entries if each.kind == LayerKind.DELTA]
        kept = garbage.needed(
            [(each.lsn_start, each.kind == LayerKind.FUZZY_IMAGE) for each in images],
            [(each.lsn_start, each.lsn_end) for each in deltas],
            retained, horizon, cuts,
        )  # fmt: skip
        flags = kept.images + kept.deltas
        total += sum(
            each.bytes_stored for each, stays in zip(images + deltas, flags, strict=True) if stays
        )
    return total


@settings(max_examples=500)
@given(STRIPES, RETAINED, LSNS)
def test_what_goes_when_an_lsn_is_dropped(
    stripes: Stripes, retained: list[int], horizon: int
) -> None:
    count = SpaceCount(retained, horizon)
    for entries, cuts in stripes:
        count.add(asked_for(entries, retained, horizon, cuts))
    space = count.result()
    now = bytes_needed(stripes, retained, horizon)
    assert space.held_bytes == now - bytes_needed(stripes, [], horizon)
    for lsn in retained:
        others = [each for each in retained if each != lsn]
        assert space.held_by(lsn) == now - bytes_needed(stripes, others, horizon)
    for lsn in range(1, 14):
        if lsn not in retained:
            assert space.held_by(lsn) == (0 if lsn >= horizon else None)


@given(st.lists(st.lists(layers(), max_size=8).map(sort_newest_first), max_size=3))
def test_debt_is_what_lies_above_images(stripes: list[list[LayerEntry]]) -> None:
    count = SpaceCount([], 1)
    for entries in stripes:
        count.add_debt(entries)
    newest = [newest_generation(entries).deltas for entries in stripes]
    assert count.result().debt_bytes == sum(each.bytes_stored for some in newest for each in some)
    assert count.result().debt_versions == sum(map(len, newest))
