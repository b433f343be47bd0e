"""The merge kernel: what it refuses in frames, and what memory it takes."""

from array import array
from collections.abc import Sequence

import pytest

from engine.layer_merge import AT_CUT, BATCH_IS_FULL, ENDED, NO_RANK, WANTS_FRAME, LayerMerge
from engine.merged_versions import MergedVersions
from formats import version

Slot = tuple[int, int, int, bytes]  # layer, block, LSN, payload
RECORD = bytes([version.RECORD, 1])
IMAGE = bytes([version.IMAGE_EXACT, 2])


def frame_of(slots: Sequence[Slot], ends: Sequence[int] | None = None) -> bytes:
    """A frame, byte by byte, right or wrong."""
    if ends is None:
        ends = [sum(len(slot[3]) for slot in slots[: i + 1]) for i in range(len(slots))]
    columns = [
        array("I", [slot[0] for slot in slots]),
        array("I", [slot[1] for slot in slots]),
        array("Q", [slot[2] for slot in slots]),
        array("I", ends),
    ]
    head = len(slots).to_bytes(4, "little") + b"".join(column.tobytes() for column in columns)
    return head + b"".join(slot[3] for slot in slots)


def merging(
    ranks: Sequence[Sequence[int]], batch_bytes: int = 1 << 20, retained: Sequence[int] = ()
) -> LayerMerge:
    """A kernel over sources with these ranks; each starts at its lowest."""
    starts = [0]
    for of_source in ranks:
        starts.append(starts[-1] + len(of_source))
    flat = [rank for of_source in ranks for rank in of_source]
    firsts = [min(of_source, default=NO_RANK) for of_source in ranks]
    used = [rank for rank in flat if rank != NO_RANK]
    chunks = range(max(used, default=0) + 1)
    columns = [("I", flat), ("Q", starts), ("I", firsts), ("I", chunks)]
    arrays = [memoryview(array(code, values)) for code, values in columns]
    out = MergedVersions(batch_bytes, memoryview(array("Q", retained)), 0, 0)
    kernel = LayerMerge(out, *arrays)
    kernels.append((kernel, out))
    return kernel


kernels: list[tuple[LayerMerge, MergedVersions]] = []


def merged(kernel: LayerMerge) -> list[tuple[int, int, bytes]]:
    """(block, LSN, payload) of the batch."""
    out = next(out for known, out in kernels if known is kernel)
    return [
        (out.block[i], out.lsn[i], bytes(out.data[out.offset[i] : out.offset[i] + out.length[i]]))
        for i in range(out.count)
    ]


def give_and_run(kernel: LayerMerge, raw: bytes) -> None:
    kernel.give(0, raw, NO_RANK)
    kernel.run()


@pytest.mark.parametrize(
    ("slots", "ends", "message"),
    [
        ([(0, 1, 5, RECORD), (0, 1, 4, RECORD)], None, "not in order"),
        ([(0, 2, 5, RECORD), (0, 1, 9, RECORD)], None, "not in order"),
        ([(1, 1, 5, RECORD), (0, 1, 9, RECORD)], None, "not in order"),
        ([(0, 1, 5, RECORD), (0, 1, 5, IMAGE)], None, "twice"),
        ([(0, 1, 0, RECORD)], None, "LSN is 0"),
        ([(0, 1, 5, RECORD), (2, 1, 5, RECORD)], None, "not in its bundle's directory"),
        ([(0, 1, 5, RECORD)], [3], "ends behind its frame"),
        ([(0, 1, 5, RECORD)], [(1 << 32) - 1], "ends behind its frame"),
        ([(0, 1, 5, RECORD)], [0], "ends of payloads are not in order"),
        ([(0, 1, 5, RECORD), (0, 1, 6, RECORD)], [4, 2], "ends of payloads are not in order"),
    ],
)
def test_a_frame_that_is_not_sorted_and_whole_is_refused(
    slots: list[Slot], ends: list[int] | None, message: str
) -> None:
    kernel = merging([[0, 1]])
    assert kernel.run() == WANTS_FRAME
    with pytest.raises(ValueError, match=message):
        give_and_run(kernel, frame_of(slots, ends))


def test_order_is_asserted_from_frame_to_frame() -> None:
    kernel = merging([[0, 1], [0]])
    assert (kernel.run(), kernel.wanted) == (WANTS_FRAME, 0)
    kernel.give(0, frame_of([(0, 7, 5, RECORD)]), 0)
    assert (kernel.run(), kernel.wanted) == (WANTS_FRAME, 1)
    kernel.give(1, frame_of([(0, 8, 5, RECORD)]), NO_RANK)
    assert (kernel.run(), kernel.wanted) == (WANTS_FRAME, 0)
    kernel.give(0, frame_of([(0, 7, 4, RECORD)]), NO_RANK)
    with pytest.raises(ValueError, match="not in order"):
        kernel.run()
    assert kernel.wanted == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\1\0\0",
        bytes(4),
        frame_of([(0, 1, 5, b"")])[:-1],
        b"\xff\xff\xff\xff" + bytes(100),
    ],
)
def test_bytes_that_are_no_frame_are_refused(raw: bytes) -> None:
    kernel = merging([[0]])
    kernel.run()
    with pytest.raises((ValueError, IndexError)):
        kernel.give(0, raw, NO_RANK)


def test_only_the_frame_that_is_wanted_is_taken() -> None:
    kernel = merging([[1], [0]])
    raw = frame_of([(0, 1, 5, RECORD)])
    assert (kernel.run(), kernel.wanted) == (WANTS_FRAME, 1)
    for source in (0, 1, 1):
        if source == 1 and kernel.slot_count == 0:
            kernel.give(1, raw, NO_RANK)
            continue
        with pytest.raises(ValueError, match="nobody wants"):
            kernel.give(source, raw, NO_RANK)


def test_sources_that_do_not_overlap_share_one_slot() -> None:
    """And a frame that is larger than all before it makes room for itself."""
    count = 3000
    kernel = merging([[rank] for rank in range(count)])
    for rank in range(count):
        assert (kernel.run(), kernel.wanted) == (WANTS_FRAME, rank)
        payload = RECORD * (50_000 if rank == 7 else 1)
        kernel.give(rank, frame_of([(0, 1, 5, payload)]), NO_RANK)
    assert kernel.run() == ENDED
    assert kernel.taken == count == len(merged(kernel))
    assert kernel.slot_count <= 4


def test_frames_stay_whole_while_the_arena_grows() -> None:
    kernel = merging([[0]] * 40, 1 << 23)
    for source in range(40):
        assert (kernel.run(), kernel.wanted) == (WANTS_FRAME, source)
        payload = RECORD + bytes([source]) * (5_000 * source)
        kernel.give(source, frame_of([(0, 40 - source, 5, payload)]), NO_RANK)
    assert kernel.run() == ENDED
    expected = [RECORD + bytes([source]) * (5_000 * source) for source in reversed(range(40))]
    assert [payload for _, _, payload in merged(kernel)] == expected


def test_a_cut_is_before_the_first_version_of_its_rank() -> None:
    kernel = merging([[0, 1, 2]])
    kernel.cut_rank = 1
    kernel.run()
    kernel.give(0, frame_of([(0, 1, 5, RECORD), (1, 1, 5, RECORD), (2, 1, 5, IMAGE)]), NO_RANK)
    assert (kernel.run(), kernel.run(), kernel.taken) == (AT_CUT, AT_CUT, 1)
    kernel.cut_rank = 2
    assert (kernel.run(), kernel.taken, kernel.last_rank()) == (AT_CUT, 2, 1)
    kernel.cut_rank = NO_RANK
    assert (kernel.run(), kernel.taken) == (ENDED, 3)


def test_a_source_that_waits_is_not_asked_before_a_cut() -> None:
    kernel = merging([[0], [1]])
    kernel.cut_rank = 1
    assert (kernel.run(), kernel.wanted) == (WANTS_FRAME, 0)
    kernel.give(0, frame_of([(0, 1, 5, RECORD)]), NO_RANK)
    assert (kernel.run(), kernel.taken) == (AT_CUT, 1)


def test_a_full_batch_is_taken_before_the_next_version() -> None:
    kernel = merging([[0]], 4)
    kernel.run()
    kernel.give(0, frame_of([(0, 1, lsn, RECORD) for lsn in range(1, 6)]), NO_RANK)
    out = kernels[-1][1]
    counts = []
    while kernel.run() == BATCH_IS_FULL:
        counts.append(out.count)
        out.clear()
    assert [*counts, out.count] == [2, 2, 1]


def test_an_image_in_the_place_of_a_version_must_be_one() -> None:
    kernel = merging([[0]])
    kernel.run()
    kernel.give(0, frame_of([(0, 1, 5, RECORD), (0, 1, 6, RECORD)]), NO_RANK)
    kernel.run()
    out = kernels[-1][1]
    for payload in (b"", RECORD):
        with pytest.raises(ValueError, match="not self-contained"):
            out.replace(1, payload)
    with pytest.raises(IndexError):
        out.replace(2, IMAGE)
    out.replace(1, IMAGE * 100_000)
    assert merged(kernel) == [(1, 5, RECORD), (1, 6, IMAGE * 100_000)]


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (IMAGE, IMAGE + b"2", IMAGE),
        (RECORD, RECORD + b"2", RECORD),
        (IMAGE, RECORD, IMAGE),
        (RECORD, IMAGE, IMAGE),
    ],
)
def test_of_equal_versions_the_self_contained_one_stays_else_the_newer(
    first: bytes, second: bytes, kept: bytes
) -> None:
    kernel = merging([[0], [0]])
    for source, payload in enumerate((first, second)):
        assert (kernel.run(), kernel.wanted) == (WANTS_FRAME, source)
        kernel.give(source, frame_of([(0, 1, 5, payload), (0, 2, 5, IMAGE)]), NO_RANK)
    assert kernel.run() == ENDED
    assert merged(kernel) == [(1, 5, kept), (2, 5, IMAGE)]


def test_what_is_pruned_takes_no_memory() -> None:
    kernel = merging([[0]], 1 << 16, [10_000])
    out = kernels[-1][1]
    room = len(out.data)
    for lsn in range(1, 1000):
        assert kernel.run() == WANTS_FRAME
        payload = IMAGE + bytes(8190)
        kernel.give(0, frame_of([(0, 1, lsn, payload)]), 0 if lsn < 999 else NO_RANK)
    assert kernel.run() == ENDED
    assert len(out.data) == room and [lsn for _, lsn, _ in merged(kernel)] == [999]
