"""Which delta layers lie above a stripe's newest image: what merges take along, and its debt."""

from engine.stripe_layers import newest_generation
from formats.file_name import FileKind, FileName
from formats.index_value import LayerEntry
from formats.layer_file import LayerKind

IMAGE_LSN = 100


def layer(kind: LayerKind, lsn_start: int, lsn_end: int) -> LayerEntry:
    name = FileName(FileKind.L1, 0, 1, lsn_end)
    return LayerEntry(lsn_start, lsn_end, name, kind, 0, 1, 0, 0, 1, 10, 1)


def deltas_above(image: LayerKind, *ranges: tuple[int, int]) -> list[tuple[int, int]]:
    """Of delta layers over such LSNs those that count, with an image at IMAGE_LSN."""
    deltas = [layer(LayerKind.DELTA, *lsns) for lsns in ranges]
    newest = newest_generation([*deltas, layer(image, IMAGE_LSN, IMAGE_LSN + 1)])
    return [(found.lsn_start, found.lsn_end) for found in newest.deltas]


def test_a_layer_on_both_sides_of_the_image_counts() -> None:
    """A memtable begins with images of hot pages, as of before; else that layer would stay for
    itself, one more for each read, until it is garbage."""
    ranges = [(101, 150), (90, 120), (90, 102)]
    assert deltas_above(LayerKind.IMAGE, *ranges) == ranges


def test_a_layer_with_nothing_above_the_image_does_not_count() -> None:
    assert deltas_above(LayerKind.IMAGE, (90, 101), (90, 100)) == []


def test_over_a_fuzzy_image_versions_at_its_own_lsn_count() -> None:
    assert deltas_above(LayerKind.FUZZY_IMAGE, (90, 101), (90, 100)) == [(90, 101)]
