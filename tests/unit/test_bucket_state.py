"""Names of a bucket's objects, the state that its records lead to, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace

import msgpack
import pytest
from crc32c import crc32c

from formats import bucket_state, manifest
from formats.bucket import (
    BucketRecord,
    EpochTaken,
    HistoryAdded,
    JournalObject,
    JournalRemoved,
    LayerObject,
    ObjectsDeleted,
    Written,
    entry_name,
    parse_serial,
    snapshot_name,
)
from formats.bucket_state import (
    BucketState,
    pack_chain_entry,
    pack_snapshot,
    unpack_chain_entry,
    unpack_snapshot,
)
from formats.errors import CorruptionError
from formats.manifest_record import (
    BundleSettled,
    FileAdded,
    FileRemoved,
    FileUploaded,
    LayersRemoved,
    LeaseSet,
    Opened,
    PointSet,
    Progress,
)
from tests.fixtures.bucket_writers import FIRST, IDENTITY, file_added, file_name, in_bucket, piece

Step = Sequence[BucketRecord]
STEPS: list[Step] = [
    [Written(1000, 0), EpochTaken(1, "n1", "s1")],
    [Written(1010, 2), *FIRST, *in_bucket(1), piece(0, 300)],
    [Written(1020, 3), *in_bucket(2), piece(300, 450), HistoryAdded(2, b"1\t0/12C\tno reason\n")],
    [Written(1030, 5), *in_bucket(3), FileRemoved(file_added(1).name),
     JournalRemoved(piece(0, 300).name), PointSet("p", 150), LeaseSet("l", 160, 9)],
    [Written(1040, 5), EpochTaken(4, "n2", "s2")],
    [Written(1050, 6), Opened(2), piece(450, 500, 4), BundleSettled(file_added(2).name),
     LayersRemoved(file_added(3).name, b"\x05")],
    [Written(1060, 6), ObjectsDeleted([piece(0, 300).name])],
    [Written(1070, 7), FileUploaded(file_added(2).name, 4)],
]  # fmt: skip


def states(steps: Sequence[Step] = STEPS) -> list[BucketState]:
    """The state before all entries, and after each."""
    state = BucketState()
    after = [state]
    for step in steps:
        data, entry = pack_chain_entry(state, step)
        assert unpack_chain_entry(data, state, "e") == state.after(entry)
        state = state.after(entry)
        after.append(state)
    return after


def test_names() -> None:
    layer = LayerObject(0x1F, file_name(0xAB))
    assert layer.text == "layers/0000001f/l0-00000000-00000001-000000ab.bundle"
    assert LayerObject.parse(layer.text) == layer
    journal = JournalObject(2, 0x1_0000_0000, 0x1_0000_1000, 3)
    assert journal.text == "journal/00000002/0000000100000000-0000000100001000-00000003"
    assert JournalObject.parse(journal.text) == journal
    assert (entry_name(255), snapshot_name(16)) == (
        "manifest/00000000000000ff", "snapshot/0000000000000010",
    )  # fmt: skip
    assert [parse_serial(name) for name in (entry_name(255), snapshot_name(16))] == [255, 16]


@pytest.mark.parametrize(
    "name",
    ["", "manifest/1", "manifest/00000000000000FF", "manifest/00000000000000ff.new",
     "layers/00000001/no.bundle", "layers/1/l0-00000000-00000001-000000ab.bundle",
     "layers/00000001/l0-00000000-00000001-000000ab.bundle/x", "layers/00000001/",
     "journal/00000002/0000000100000000-0000000100001000", "probe/1",
     "journal/00000002/0000000100000000-0000000100001000-00000003\n"],
)  # fmt: skip
def test_other_names_are_refused(name: str) -> None:
    for parse in (parse_serial, LayerObject.parse, JournalObject.parse):
        with pytest.raises(ValueError, match="not the name"):
            parse(name)


def test_what_a_chain_leads_to() -> None:
    after = states()
    last = after[-1]
    first, second, third = (LayerObject(1, file_name(n)).text for n in (1, 2, 3))
    assert (last.serial, last.epoch, last.nonce, last.server_id) == (8, 4, "n2", "s2")
    assert (last.seconds, last.local_serial, last.manifest.run) == (1070, 7, 2)
    assert last.objects() == [
        LayerObject(4, file_name(2)).text, third, piece(300, 450).name, piece(450, 500, 4).name
    ]  # fmt: skip
    assert last.histories == {2: b"1\t0/12C\tno reason\n"}
    assert last.dead == {first: 1040}
    assert last.dying == {second: None}
    assert after[4].dying == {first: None, piece(0, 300).name: None}
    assert after[4].dead == {}
    assert after[5].dead == {first: 1040, piece(0, 300).name: 1040}


def test_an_object_is_dead_since_the_entry_after() -> None:
    """The one that took it away may have been tried for hours before it came through."""
    state = states([*STEPS[:3], [Written(1030, 4), FileRemoved(file_added(1).name)]])[-1]
    name = LayerObject(1, file_name(1)).text
    assert (state.dead, state.dying) == ({}, {name: None})
    later = state.after(pack_chain_entry(state, [Written(8000, 4)])[1])
    assert (later.dead, later.dying) == ({name: 8000}, {})


def test_the_remote_lsn() -> None:
    assert [state.remote_lsn for state in states()] == [0, 0, 300, 450, 450, 450, 500, 500, 500]
    apart = replace(states()[3], journal=[piece(400, 900)])
    assert apart.remote_lsn == apart.manifest.durable_lsn == 300
    ahead = states()[3]
    ahead.manifest.durable_lsn = 1000
    assert ahead.remote_lsn == 1000
    ahead.manifest.backup_end_lsn = 1001
    assert ahead.remote_lsn == 0, "not even the base backup can be read"


def test_snapshots_go_on_where_the_chain_was() -> None:
    after = states()
    for state, step in zip(after[1:], [*STEPS[1:], [Written(1, 1)]], strict=True):
        data = pack_snapshot(state)
        again = unpack_snapshot(data, state.serial, "s")
        assert again == state
        assert pack_snapshot(again) == data
        assert again.after(pack_chain_entry(state, step)[1]).serial == state.serial + 1


def test_every_flipped_byte_is_noticed() -> None:
    before, after = states()[3:5]
    entry, _ = pack_chain_entry(before, STEPS[3])
    for data, unpack in (
        (entry, lambda data: unpack_chain_entry(data, before, "e")),
        (pack_snapshot(after), lambda data: unpack_snapshot(data, after.serial, "s")),
    ):
        for pos in range(len(data)):
            for flip in (0x01, 0x80, data[pos]):
                broken = bytearray(data)
                broken[pos] ^= flip
                if bytes(broken) == data:
                    continue
                with pytest.raises(CorruptionError):
                    unpack(bytes(broken))


def test_an_object_that_is_cut_or_longer_is_refused() -> None:
    before, after = states()[3:5]
    entry, _ = pack_chain_entry(before, STEPS[3])
    snapshot = pack_snapshot(after)
    for length in range(len(entry)):
        with pytest.raises(CorruptionError):
            unpack_chain_entry(entry[:length], before, "e")
    for length in range(len(snapshot)):
        with pytest.raises(CorruptionError):
            unpack_snapshot(snapshot[:length], after.serial, "s")
    for tail in (b"\0", b"\xa5", entry):
        with pytest.raises(CorruptionError):
            unpack_chain_entry(entry + tail, before, "e")
        with pytest.raises(CorruptionError):
            unpack_snapshot(snapshot + tail, after.serial, "s")
    with pytest.raises(CorruptionError, match="header"):
        unpack_chain_entry(snapshot, before, "e")


def test_an_entry_follows_one_state_alone() -> None:
    after = states()
    objects = [pack_chain_entry(s, step)[0] for s, step in zip(after[:-1], STEPS, strict=True)]
    for number, state in enumerate(after):
        for other, data in enumerate(objects):
            if number != other:
                with pytest.raises(CorruptionError, match="checksum"):
                    unpack_chain_entry(data, state, "e")


def test_a_serial_is_that_of_the_name() -> None:
    state = states()[4]
    shifted = replace(state, serial=7)
    data, _ = pack_chain_entry(shifted, [Written(1, 1)])
    with pytest.raises(CorruptionError, match="serial at e: expected 5, found 8"):
        unpack_chain_entry(data, state, "e")
    with pytest.raises(CorruptionError, match="serial at s: expected 4, found 7"):
        unpack_snapshot(pack_snapshot(shifted), 4, "s")


def test_an_unknown_format_version_is_refused() -> None:
    state = states()[4]
    for magic, data, unpack in (
        (bucket_state.ENTRY_MAGIC, pack_chain_entry(state, STEPS[4])[0],
         lambda data: unpack_chain_entry(data, state, "e")),
        (bucket_state.SNAPSHOT_MAGIC, pack_snapshot(state),
         lambda data: unpack_snapshot(data, 4, "s")),
    ):  # fmt: skip
        head = magic + (2).to_bytes(4, "little")
        newer = head + crc32c(head).to_bytes(4, "little") + data[16:]
        with pytest.raises(CorruptionError, match="unknown format version.*expected 1, found 2"):
            unpack(newer)


@pytest.mark.parametrize(
    "record",
    [
        {"record": "lease_granted", "lsn": 5},
        {"record": "chain_at", "crc": 5},
        {"record": "object_dead", "name": "a", "seconds": 5},
        {"record": "objects_deleted", "names": "a"},
        {"record": "objects_deleted", "names": [1]},
        {"record": "written", "seconds": 1.5, "local_serial": 1},
        {"record": "written", "seconds": -1, "local_serial": 1},
        {"record": "epoch_taken", "epoch": "9", "nonce": "n", "server_id": "s"},
        {"record": "history_added", "timeline": 2, "content": "text"},
        {"record": "journal_removed"},
    ],
    ids=str,
)
def test_unknown_records_and_values_are_refused(record: dict[str, object]) -> None:
    state = states()[4]
    written = {"record": "written", "seconds": 1, "local_serial": 1}
    body: bytes = msgpack.packb([5, written, record])
    length = len(body).to_bytes(4, "little")
    head = length + crc32c(length).to_bytes(4, "little")
    crc = crc32c(body, crc32c(length, state.crc)).to_bytes(4, "little")
    data = pack_chain_entry(state, [])[0][:16] + head + crc + body + manifest.END_MARK
    with pytest.raises(CorruptionError, match="manifest records"):
        unpack_chain_entry(data, state, "e")


@pytest.mark.parametrize(
    ("why", "step"),
    [
        ("when it was written", []),
        ("when it was written", [EpochTaken(9, "n", "s")]),
        ("when it was written", [Written(1, 1), Written(1, 1)]),
        ("a second identity", [Written(1, 1), IDENTITY]),
        ("epoch 4 after epoch 4", [Written(1, 1), EpochTaken(4, "n3", "s3")]),
        ("is not in the bucket", [Written(1, 1), file_added(9)]),
        ("epoch above 4", [Written(1, 1), file_added(9), FileUploaded(file_added(9).name, 5)]),
        ("added twice", [Written(1, 1), *in_bucket(3)]),
        ("named again", [Written(1, 1), *in_bucket(1)]),
        ("never added", [Written(1, 1), FileRemoved(file_added(1).name)]),
        ("not the name", [Written(1, 1), FileAdded("no bundle", 1, 2, 3, 4)]),
        ("ends at 00000000000001f4", [Written(1, 1), piece(501, 600, 4)]),
        ("ends at 00000000000001f4", [Written(1, 1), piece(499, 600, 4)]),
        ("ends at 00000000000001f4", [Written(1, 1), piece(500, 500, 4)]),
        ("epoch above 4", [Written(1, 1), piece(500, 600, 5)]),
        ("neither the first", [Written(1, 1), JournalRemoved(piece(0, 300).name)]),
        ("named again", [Written(1, 1), JournalRemoved(piece(450, 500, 4).name),
                         piece(450, 500, 4)]),
        ("another history", [Written(1, 1), HistoryAdded(2, b"another")]),
        ("not dead", [Written(1, 1), ObjectsDeleted(["layers/none"])]),
        ("not dead", [Written(1, 1), ObjectsDeleted([LayerObject(1, file_name(3)).text])]),
    ],
    ids=str,
)  # fmt: skip
def test_records_that_cannot_follow_are_refused(why: str, step: Step) -> None:
    state = states()[-1]
    before = state.copy()
    data, entry = pack_chain_entry(state, step)
    with pytest.raises(ValueError, match=why):
        state.after(entry)
    with pytest.raises(CorruptionError, match=why):
        unpack_chain_entry(data, state, "e")
    assert state == before


def test_a_piece_in_the_middle_of_the_journal_stays() -> None:
    state = states()[3]
    for step in ([piece(450, 500)], [piece(500, 600)]):
        state = state.after(pack_chain_entry(state, [Written(1, 1), *step])[1])
    last = [Written(1, 1), JournalRemoved(piece(500, 600).name)]
    assert state.after(pack_chain_entry(state, last)[1]).remote_lsn == 500
    middle = [Written(1, 1), JournalRemoved(piece(450, 500).name)]
    with pytest.raises(ValueError, match="neither the first piece nor the last"):
        state.after(pack_chain_entry(state, middle)[1])


def test_snapshots_of_what_cannot_be_are_refused() -> None:
    state = states()[4]
    for change, why in (
        ({"nonce": "n", "epoch": 0}, "epoch"),
        ({"journal": [piece(0, 300), piece(350, 400)]}, "behind a journal"),
    ):
        with pytest.raises(CorruptionError, match=why):
            unpack_snapshot(pack_snapshot(replace(state, **change)), 4, "s")  # type: ignore[arg-type]
    lacking = state.copy()
    del lacking.manifest.uploaded[file_name(2)]
    with pytest.raises(CorruptionError, match="is not in the bucket"):
        unpack_snapshot(pack_snapshot(lacking), 4, "s")


def test_another_layout_is_refused() -> None:
    other = replace(IDENTITY, block_bytes=4096)
    state = states()[1]
    data, entry = pack_chain_entry(state, [Written(1, 1), other])
    with pytest.raises(CorruptionError, match="block_bytes.*expected 8192, found 4096"):
        unpack_chain_entry(data, state, "e")
    with pytest.raises(CorruptionError, match="block_bytes"):
        unpack_snapshot(pack_snapshot(state.after(entry)), 2, "s")


def test_a_progress_alone_changes_nothing_else() -> None:
    state = states()[-1]
    moved = state.after(pack_chain_entry(state, [Written(1080, 8), Progress(horizon_lsn=7)])[1])
    assert moved.manifest.horizon_lsn == 7
    assert moved.objects() == state.objects()
