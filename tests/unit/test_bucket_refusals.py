"""A bucket's entries and snapshots that are damaged, or cannot follow, are refused by name."""

from dataclasses import replace

import msgpack
import pytest
from crc32c import crc32c

from formats import bucket_state, manifest
from formats.bucket import (
    EpochTaken,
    HistoryAdded,
    JournalRemoved,
    LayerObject,
    ObjectsDeleted,
    Written,
)
from formats.bucket_state import (
    pack_chain_entry,
    pack_snapshot,
    unpack_chain_entry,
    unpack_snapshot,
)
from formats.errors import CorruptionError
from formats.manifest_record import FileAdded, FileRemoved, FileUploaded, Progress
from tests.fixtures.bucket_writers import (
    CHAIN,
    IDENTITY,
    Step,
    chain_states,
    file_added,
    file_name,
    in_bucket,
    piece,
)


def test_every_flipped_byte_is_noticed() -> None:
    before, after = chain_states()[3:5]
    entry, _ = pack_chain_entry(before, CHAIN[3])
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
    before, after = chain_states()[3:5]
    entry, _ = pack_chain_entry(before, CHAIN[3])
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
    after = chain_states()
    objects = [pack_chain_entry(s, step)[0] for s, step in zip(after[:-1], CHAIN, strict=True)]
    for number, state in enumerate(after):
        for other, data in enumerate(objects):
            if number != other:
                with pytest.raises(CorruptionError, match="checksum"):
                    unpack_chain_entry(data, state, "e")


def test_a_serial_is_that_of_the_name() -> None:
    state = chain_states()[4]
    shifted = replace(state, serial=7)
    data, _ = pack_chain_entry(shifted, [Written(1, 1)])
    with pytest.raises(CorruptionError, match="serial at e: expected 5, found 8"):
        unpack_chain_entry(data, state, "e")
    with pytest.raises(CorruptionError, match="serial at s: expected 4, found 7"):
        unpack_snapshot(pack_snapshot(shifted), 4, "s")


def test_an_entry_of_another_serial_does_not_follow() -> None:
    state = chain_states()[4]
    _, entry = pack_chain_entry(state, CHAIN[4])
    with pytest.raises(ValueError, match="entry 6 after entry 4"):
        state.after(replace(entry, serial=6))


def test_an_unknown_format_version_is_refused() -> None:
    state = chain_states()[4]
    for magic, data, unpack in (
        (bucket_state.ENTRY_MAGIC, pack_chain_entry(state, CHAIN[4])[0],
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
    state = chain_states()[4]
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
    state = chain_states()[-1]
    before = state.copy()
    data, entry = pack_chain_entry(state, step)
    with pytest.raises(ValueError, match=why):
        state.after(entry)
    with pytest.raises(CorruptionError, match=why):
        unpack_chain_entry(data, state, "e")
    assert state == before


def test_a_piece_in_the_middle_of_the_journal_stays() -> None:
    state = chain_states()[3]
    for step in ([piece(450, 500)], [piece(500, 600)]):
        state = state.after(pack_chain_entry(state, [Written(1, 1), *step])[1])
    last = [Written(1, 1), JournalRemoved(piece(500, 600).name)]
    assert state.after(pack_chain_entry(state, last)[1]).remote_lsn == 500
    middle = [Written(1, 1), JournalRemoved(piece(450, 500).name)]
    with pytest.raises(ValueError, match="neither the first piece nor the last"):
        state.after(pack_chain_entry(state, middle)[1])


def test_snapshots_of_what_cannot_be_are_refused() -> None:
    state = chain_states()[4]
    gap = replace(state, journal=[piece(0, 300), piece(350, 400)])
    with pytest.raises(CorruptionError, match="behind a journal"):
        unpack_snapshot(pack_snapshot(gap), 4, "s")
    with pytest.raises(CorruptionError, match="epoch above 0"):
        unpack_snapshot(pack_snapshot(replace(state, epoch=0)), 4, "s")
    lacking = state.copy()
    del lacking.manifest.uploaded[file_name(2)]
    with pytest.raises(CorruptionError, match="is not in the bucket"):
        unpack_snapshot(pack_snapshot(lacking), 4, "s")


def test_another_layout_is_refused() -> None:
    other = replace(IDENTITY, block_bytes=4096)
    state = chain_states()[1]
    data, entry = pack_chain_entry(state, [Written(1, 1), other])
    with pytest.raises(CorruptionError, match="block_bytes.*expected 8192, found 4096"):
        unpack_chain_entry(data, state, "e")
    with pytest.raises(CorruptionError, match="block_bytes"):
        unpack_snapshot(pack_snapshot(state.after(entry)), 2, "s")


def test_a_progress_alone_changes_nothing_else() -> None:
    state = chain_states()[-1]
    moved = state.after(pack_chain_entry(state, [Written(1080, 8), Progress(horizon_lsn=7)])[1])
    assert moved.manifest.horizon_lsn == 7
    assert moved.objects() == state.objects()
