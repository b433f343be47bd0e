"""The frame kernel: what it writes byte by byte, what it finds, what it refuses."""

import struct
from array import array

import pytest

from engine.bundle_writer import run_of
from formats import chunk, frame, version
from formats.frame import LayerColumns
from formats.frame_encoder import FrameEncoder

A = chunk.relation(1663, 5, 16384, 0).pack()
B = chunk.relation(1663, 5, 16385, 0).pack()
LSN_MAX = (1 << 64) - 1


def made(encoder):
    """The frames of the last call."""
    places = list(encoder.places[: 2 * encoder.frames])
    return [
        bytes(encoder.out[start : start + length])
        for start, length in zip(places[::2], places[1::2], strict=True)
    ]


def load(encoder, run):
    encoder.load(run, memoryview(array("I", range(len(run.keys)))))


def encode(versions, frame_bytes=1 << 16, batch_bytes=0):
    encoder = FrameEncoder(frame_bytes, batch_bytes)
    load(encoder, run_of(versions))
    frames = []
    while encoder.encode_run(len(frames)):
        frames += made(encoder)
    return frames, encoder


def columns(layers):
    names = ("chunk", "stripe", "lsn_start", "lsn_end", "frame_start", "frame_end", "block_start",
             "block_end", "versions")  # fmt: skip
    return [
        tuple(memoryview(getattr(layers, name))[row] for name in names)
        for row in range(layers.count)
    ]


def test_bytes_of_a_frame():
    (raw,), _ = encode([(A, 1, 0x100, b"one"), (B, 7, LSN_MAX - 1, b"seven")])
    expected = "02000000" + "00000000 01000000" + "01000000 07000000"
    expected += "0001000000000000 feffffffffffffff" + "03000000 08000000"
    assert raw == bytes.fromhex(expected) + b"oneseven"


def test_a_frame_ends_with_the_version_that_fills_it():
    versions = [(A, block, 100, bytes(80)) for block in range(10)]
    frames, _ = encode(versions, 200)
    assert [struct.unpack_from("<I", raw)[0] for raw in frames] == [2, 2, 2, 2, 2]
    frames, _ = encode([(A, 0, 100, bytes(100_000)), (A, 1, 100, b"x")], 200)
    assert [len(raw) for raw in frames] == [100_024, 25]


def test_layers_begin_with_a_chunk_and_with_a_stripe():
    versions = [(A, 5, 100, b"1"), (A, 5, 300, b"2"), (A, 16383, 200, b"3"), (A, 16384, 90, b"4"),
                (B, 0, 50, b"5")]  # fmt: skip
    _, encoder = encode(versions)
    assert columns(encoder.layers) == [
        (0, 0, 100, 301, 0, 1, 5, 16384, 3),
        (0, 1, 90, 91, 0, 1, 16384, 16385, 1),
        (1, 0, 50, 51, 0, 1, 0, 1, 1),
    ]


def test_of_equal_versions_the_last_wins():
    versions = [(A, 1, 100, b"old"), (A, 1, 100, b"new"), (A, 1, 101, b"x"), (B, 1, 101, b"y"),
                (B, 2, 101, b"z"), (B, 2, 101, b"last")]  # fmt: skip
    (raw,), _ = encode(versions)
    payloads = [raw[frame.version_start(raw, i) : frame.version_end(raw, i)] for i in range(4)]
    assert payloads == [b"new", b"x", b"y", b"last"]
    assert struct.unpack_from("<I", raw)[0] == 4


def test_more_layers_than_the_columns_first_have_room_for():
    versions = [(A, stripe << 14, 100, b"x") for stripe in range(1500)]
    frames, encoder = encode(versions, 1000)
    assert encoder.layers.count == 1500
    layers = LayerColumns()
    for number, raw in enumerate(frames):
        frame.check(raw, number, layers)
    assert [row[1:] for row in columns(layers)] == [row[1:] for row in columns(encoder.layers)]


def test_a_run_out_of_order_is_refused():
    run = run_of([(A, 1, 100, b"a"), (A, 2, 100, b"b")])
    order = bytes(run.order)
    backwards = run._replace(order=memoryview(order[4:] + order[:4]).cast("I"))
    encoder = FrameEncoder(1000)
    load(encoder, backwards)
    with pytest.raises(ValueError, match="not in order"):
        encoder.encode_run(0)


def test_offsets_outside_of_the_data_are_refused():
    run = run_of([(A, 1, 100, b"abc")])._replace(data=b"ab")
    encoder = FrameEncoder(1000)
    load(encoder, run)
    with pytest.raises(IndexError):
        encoder.encode_run(0)


def test_searching():
    versions = [(A, 3, 10, b"a"), (A, 3, 20, b"b"), (A, 5, 15, b"c"), (B, 3, 12, b"d")]
    (raw,), _ = encode(versions)
    for (layer, block, lsn), slot in {
        (0, 0, 100): -1, (0, 3, 9): -1, (0, 3, 10): 0, (0, 3, 19): 0, (0, 3, LSN_MAX): 1,
        (0, 4, 5): 1, (0, 5, 15): 2, (0, 9, 0): 2, (1, 3, 11): 2, (1, 3, 12): 3, (2, 0, 0): 3,
    }.items():  # fmt: skip
        assert frame.last_version(raw, layer, block, lsn) == slot
    assert frame.is_of_block(raw, 1, 0, 3)
    assert not frame.is_of_block(raw, 2, 0, 3)
    assert list(frame.slots_of_layer(raw, 0)) == [0, 1, 2]
    assert list(frame.slots_of_layer(raw, 1)) == [3]
    assert (frame.version_block(raw, 2), frame.version_lsn(raw, 2)) == (5, 15)


def page(lower=0, upper=0, fill=b"\0"):
    body = bytearray(8192)
    struct.pack_into("<HHH", body, 12, lower, upper, 8192)
    if upper:
        body[upper:] = fill * (8192 - upper)
    return bytes(body)


def payloads(pages, frame_bytes=1 << 20, batch_bytes=0):
    encoder = FrameEncoder(frame_bytes, batch_bytes)
    data, done, found = b"".join(pages), 0, []
    while done < len(pages):
        done += encoder.encode_pages(0, 0, 100 + done, 77, version.IMAGE_FUZZY, data, 8192 * done)
        for raw in made(encoder):
            for slot in range(frame.version_count(raw)):
                assert frame.version_block(raw, slot) == 100 + len(found)
                assert frame.version_lsn(raw, slot) == 77
                found.append(raw[frame.version_start(raw, slot) : frame.version_end(raw, slot)])
        assert len(found) == done == encoder.versions
    return found


def whole(payload):
    """An image as reconstruction reads it."""
    _, _, offset, length = struct.unpack_from("<BBHH", payload)
    return payload[6 : 6 + offset] + bytes(length) + payload[6 + offset :]


DIRTY_HOLE = bytearray(page(100, 8000, b"t"))
DIRTY_HOLE[5000] = 1


@pytest.mark.parametrize(
    ("body", "hole"),
    [
        (bytes(8192), (0, 8192)),
        (page(), (0, 0)),
        (page(24, 8192), (24, 8168)),
        (page(100, 8000, b"t"), (100, 7900)),
        (page(101, 8003, b"t"), (101, 7902)),
        (page(100, 101, b"t"), (100, 1)),
        (page(8000, 100, b"t"), (0, 0)),
        (page(100, 100, b"t"), (0, 0)),
        (page(20, 8000, b"t"), (0, 0)),
        (page(100, 9000), (0, 0)),
        (bytes(DIRTY_HOLE), (0, 0)),
        (bytes(8191) + b"x", (0, 0)),
        (b"\xff" * 8192, (0, 0)),
    ],
    ids=range(13),
)
def test_only_zeros_are_a_hole(body, hole):
    (payload,) = payloads([body])
    assert struct.unpack_from("<BBHH", payload) == (version.IMAGE_FUZZY, 0, *hole)
    assert whole(payload) == body


@pytest.mark.parametrize("batch_bytes", [0, 100_000, 1 << 20])
def test_pages_in_many_frames(batch_bytes):
    pages = [page(24 + i, 8000, bytes([i])) for i in range(20)]
    assert [whole(payload) for payload in payloads(pages, 32768, batch_bytes)] == pages


@pytest.mark.parametrize("batch_bytes", [0, 500, 3000, 1 << 20])
def test_frames_are_the_same_however_many_a_call(batch_bytes):
    """Also where one version makes the buffer grow behind frames that lie in it already."""
    sizes = [80] * 9 + [150_000] + [3] * 200 + [70_000] + [500] * 700
    versions = [(A, block, 100, bytes([block % 251]) * n) for block, n in enumerate(sizes)]
    expected, first = encode(versions, 400)
    frames, encoder = encode(versions, 400, batch_bytes)
    assert frames == expected
    assert columns(encoder.layers) == columns(first.layers)
    assert encoder.versions == len(versions)


def test_where_each_frame_of_a_call_begins():
    versions = [(A, block, 100 + block, bytes(80)) for block in range(10)]
    encoder = FrameEncoder(200, 1 << 16)
    load(encoder, run_of([*versions, (B, 7, 50, bytes(300))]))
    assert encoder.encode_run(0) == 6
    assert list(encoder.first_layer[:6]) == [0, 0, 0, 0, 0, 1]
    assert list(encoder.first_block[:6]) == [0, 2, 4, 6, 8, 7]
    assert list(encoder.first_lsn[:6]) == [100, 102, 104, 106, 108, 50]
    assert encoder.encode_run(6) == 0


def test_a_frame_that_is_not_as_written_is_refused():
    versions = [(A, 3, 10, b"aa"), (A, 3, 20, b"b"), (B, 3, 12, b"dd")]
    (raw,), _ = encode(versions)
    assert frame.check(raw, 0, LayerColumns()) == 3
    for change in (
        lambda r: r[:-1],  # a payload cut off
        lambda r: r + b"x",
        lambda r: r[:4] + r[8:12] + r[4:8] + r[12:],  # layers out of order would be renumbered
        lambda r: bytes(4) + r[4:],
        lambda r: r[:8] + bytes([2]) + r[9:],
        lambda r: r[:28] + bytes([20]) + r[29:],  # LSNs 20, 20
        lambda r: r[:3],
    ):
        if change(raw) != raw:
            with pytest.raises((ValueError, IndexError)):
                frame.check(change(raw), 0, LayerColumns())
