"""The manifest's bytes: records both ways, every flipped byte noticed, every cut a prefix."""

from dataclasses import replace
from itertools import pairwise

import msgpack
import pytest
from crc32c import crc32c

from formats import manifest
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.manifest import Manifest
from formats.manifest_record import (
    FileAdded,
    FileRemoved,
    Identity,
    LayersRemoved,
    LeaseDropped,
    LeaseSet,
    Opened,
    PointDropped,
    PointSet,
    Progress,
    Record,
    TimelineSwitch,
)

IDENTITY = Identity("a" * 32, "b" * 32, 7_300_000_000_000_000_001, 180006, 16 << 20)
ADDED = FileAdded("l0-00000000-00000001-00000001.bundle", 4096, 100, 201, 0xDEADBEEF)
STEPS: list[list[Record]] = [
    [IDENTITY, Opened(1)],
    [Progress(backup_start_lsn=90, horizon_lsn=95)],
    [ADDED, Progress(durable_lsn=200)],
    [TimelineSwitch(2, 190), Opened(2)],
    [LayersRemoved(ADDED.name, b"\x81"), PointSet("release", 150), LeaseSet("l", 120, 1_000)],
    [LayersRemoved(ADDED.name, b"\x02\x40"), LeaseSet("l", 120, 2_000), PointSet("p", 150)],
    [LeaseSet("m", 120, 1), LeaseDropped("l"), PointDropped("release")],
    [FileRemoved(ADDED.name)],
]


def build(steps: list[list[Record]], first_serial: int = 1) -> bytes:
    data = manifest.pack_header()
    crc = manifest.check_header(data, "m")
    for i, records in enumerate(steps):
        entry, crc = manifest.pack_entry(first_serial + i, records, crc)
        data += entry
    return data


def states(steps: list[list[Record]]) -> list[Manifest]:
    """The state after each entry."""
    state, after = Manifest(), []
    for i, records in enumerate(steps):
        for record in records:
            state.apply(record)
        state.serial = i + 1
        after.append(state.copy())
    return after


def test_replay() -> None:
    data = build(STEPS)
    state, last = manifest.replay(data, "m")
    assert last.end == len(data)
    assert state == states(STEPS)[-1]
    assert (state.run, state.serial, state.durable_lsn, state.horizon_lsn) == (2, 8, 200, 95)
    assert state.files == state.removed == {}
    assert state.points == {"p": PointSet("p", 150)}
    assert state.leases == {"m": LeaseSet("m", 120, 1)}
    assert state.timelines == [TimelineSwitch(2, 190)]


def test_removed_rows_add_up() -> None:
    name = FileName.parse(ADDED.name)
    assert [state.removed.get(name) for state in states(STEPS)] == [
        None, None, None, None, b"\x81", b"\x83\x40", b"\x83\x40", None
    ]  # fmt: skip


def test_a_copy_is_its_own() -> None:
    """An entry whose last record cannot follow changes nothing: it was applied to a copy."""
    state = states(STEPS)[5]
    again = state.copy()
    for record in (LayersRemoved(ADDED.name, b"\xff"), PointDropped("p"), LeaseDropped("l")):
        again.apply(record)
    assert state == states(STEPS)[5] != again


def test_a_state_is_its_own_records() -> None:
    for state in states(STEPS):
        again = Manifest(serial=state.serial)
        for record in state.records():
            again.apply(record)
        assert again == state


def test_every_flipped_byte_is_noticed() -> None:
    data = build(STEPS)
    for pos in range(len(data)):
        for flip in (0x01, 0x80, 0xFF, data[pos]):
            broken = bytearray(data)
            broken[pos] ^= flip
            if bytes(broken) == data:
                continue
            if pos == len(data) - 1 and broken[pos] == 0:  # as torn as can be, yet whole
                state, last = manifest.replay(bytes(broken), "m")
                assert state == states(STEPS)[-1]
                assert not last.has_mark
                continue
            with pytest.raises(CorruptionError):
                manifest.replay(bytes(broken), "m")


def test_every_cut_leaves_a_prefix() -> None:
    data, after = build(STEPS), states(STEPS)
    ends = [entry.end for entry in manifest.entries(data, "m")]
    for length in range(len(data)):
        whole = sum(end <= length for end in ends)
        if whole == 0:
            with pytest.raises(CorruptionError):
                manifest.replay(data[:length], "m")
            continue
        state, last = manifest.replay(data[:length], "m")
        assert last.end == ends[whole - 1]
        assert state == after[whole - 1]


def test_a_tail_whose_bytes_never_came_is_torn() -> None:
    """After a power failure the file may have its new size, and zeros instead of the new bytes."""
    data, after = build(STEPS), states(STEPS)
    ends = [entry.end for entry in manifest.entries(data, "m")]
    for length in range(ends[-2], len(data)):
        state, last = manifest.replay(data[:length] + bytes(len(data) - length), "m")
        if length == len(data) - 1:
            assert (state, last.end, last.has_mark) == (after[-1], len(data) - 1, False)
        else:
            assert (state, last.end) == (after[-2], ends[-2])


def test_an_entry_of_whose_sectors_any_never_came_is_torn() -> None:
    """A disk writes sectors in the order that it likes; the file may have its new size before."""
    added = [replace(ADDED, name=ADDED.name.replace("1.", f"{n}.")) for n in range(2, 10)]
    data, before = build([*STEPS, [*added]]), states(STEPS)[-1]
    begin = [entry.end for entry in manifest.entries(data, "m")][-2]
    bounds = [begin, *range((begin // 512 + 1) * 512, len(data), 512), len(data)]
    sectors = list(pairwise(bounds))
    assert len(sectors) >= 3
    for lost in range(1, 1 << len(sectors)):
        broken = bytearray(data)
        for number, (start, end) in enumerate(sectors):
            if lost >> number & 1:
                broken[start:end] = bytes(end - start)
        state, last = manifest.replay(bytes(broken), "m")
        assert (state, last.end) == (before, begin), f"{lost:b}"
    for start, end in sectors:  # a part of one: no disk does that
        broken = bytearray(data)
        broken[start + 1 : end - 1] = bytes(end - start - 2)
        with pytest.raises(CorruptionError):
            manifest.replay(bytes(broken), "m")


@pytest.mark.parametrize("order", [(0, 2, 1, 3, 4), (0, 1, 1, 2, 3), (0, 2, 3, 4), (0, 1, 2, 4)])
def test_entries_cannot_be_exchanged_repeated_or_lost(order: tuple[int, ...]) -> None:
    data = build(STEPS)
    ends = [manifest.HEADER_BYTES, *(entry.end for entry in manifest.entries(data, "m"))]
    shuffled = data[: ends[0]] + b"".join(data[ends[i] : ends[i + 1]] for i in order)
    with pytest.raises(CorruptionError, match="checksum"):
        manifest.replay(shuffled, "m")


@pytest.mark.parametrize(
    "steps",
    [
        [[Opened(1)]],
        [[IDENTITY, IDENTITY]],
        [[IDENTITY, Opened(2)], [Opened(2)]],
        [[IDENTITY, ADDED], [ADDED]],
        [[IDENTITY], [FileRemoved(ADDED.name)]],
        [[IDENTITY], [LayersRemoved(ADDED.name, b"\1")]],
        [[IDENTITY, ADDED], [FileRemoved(ADDED.name)], [LayersRemoved(ADDED.name, b"\1")]],
        [[IDENTITY], [LayersRemoved("no bundle", b"\1")]],
        [[IDENTITY, PointSet("a", 5)], [PointSet("a", 5)]],
        [[IDENTITY, LeaseSet("a", 5, 6)], [PointDropped("a")]],
        [[IDENTITY, LeaseSet("a", 5, 6)], [LeaseSet("a", 4, 6)]],
        [[IDENTITY, PointSet("a", 5)], [LeaseDropped("a")]],
        [],
    ],
)
def test_records_that_cannot_follow_are_refused(steps: list[list[Record]]) -> None:
    with pytest.raises(CorruptionError):
        manifest.replay(build(steps), "m")


def test_another_layout_is_refused() -> None:
    with pytest.raises(CorruptionError, match="stripe_blocks.*expected 16384, found 4096"):
        manifest.replay(build([[replace(IDENTITY, stripe_blocks=4096)]]), "m")
    with pytest.raises(CorruptionError, match="block_bytes"):
        manifest.replay(build([[replace(IDENTITY, block_bytes=4096)]]), "m")


def test_an_unknown_record_is_refused_by_name() -> None:
    header = manifest.pack_header()
    body = msgpack.packb([1, {"record": "lease_granted", "lsn": 5}])
    length = len(body).to_bytes(4, "little")
    crc = crc32c(body, crc32c(length, manifest.check_header(header, "m")))
    head = length + crc32c(length).to_bytes(4, "little") + crc.to_bytes(4, "little")
    with pytest.raises(CorruptionError, match="lease_granted"):
        manifest.replay(header + head + body + manifest.END_MARK, "m")


def test_an_unknown_format_version_is_refused() -> None:
    head = manifest.MAGIC + (2).to_bytes(4, "little")
    with pytest.raises(CorruptionError, match="unknown format version.*expected 1, found 2"):
        manifest.replay(head + crc32c(head).to_bytes(4, "little"), "m")


@pytest.mark.parametrize(
    "values",
    [
        [1, 5],
        [1, []],
        [float("inf")],
        ["1"],
        [-1],
        [1, {"record": "opened", "run": "1"}],
        [1, {"record": "opened", "run": -1}],
        [1, {"record": "opened", "run": None}],
        [1, {"record": ["opened"], "run": 1}],
        [1, {"record": "progress", "durable_lsn": 1.5}],
        [1, {"record": "lease_set", "name": "a", "lsn": 1, "until_seconds": 1.5}],
        [1, {"record": "lease_set", "name": 7, "lsn": 1, "until_seconds": 1}],
        [1, {"record": "point_set", "name": "a"}],
        [1, {"record": "layers_removed", "name": ADDED.name, "rows": "text"}],
        [],
    ],
    ids=str,
)
def test_values_of_another_type_are_refused(values: list[object]) -> None:
    """They check, so somebody wrote them; they are no records all the same."""
    header = manifest.pack_header()
    body: bytes = msgpack.packb(values)
    length = len(body).to_bytes(4, "little")
    crc = crc32c(body, crc32c(length, manifest.check_header(header, "")))
    head = length + crc32c(length).to_bytes(4, "little") + crc.to_bytes(4, "little")
    with pytest.raises(CorruptionError, match="manifest records"):
        manifest.replay(header + head + body + manifest.END_MARK, "")
