"""Names of a bucket's objects, and the state that its records lead to."""

from dataclasses import replace

import pytest

from formats.bucket import (
    JournalObject,
    LayerObject,
    Written,
    entry_name,
    parse_serial,
    snapshot_name,
)
from formats.bucket_state import pack_chain_entry, pack_snapshot, unpack_snapshot
from formats.manifest_record import FileRemoved
from tests.fixtures.bucket_writers import CHAIN, chain_states, file_added, file_name, piece


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
    after = chain_states()
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
    state = chain_states([*CHAIN[:3], [Written(1030, 4), FileRemoved(file_added(1).name)]])[-1]
    name = LayerObject(1, file_name(1)).text
    assert (state.dead, state.dying) == ({}, {name: None})
    later = state.after(pack_chain_entry(state, [Written(8000, 4)])[1])
    assert (later.dead, later.dying) == ({name: 8000}, {})


def test_the_remote_lsn() -> None:
    assert [state.remote_lsn for state in chain_states()] == [
        0,
        0,
        300,
        450,
        450,
        450,
        500,
        500,
        500,
    ]
    apart = replace(chain_states()[3], journal=[piece(400, 900)])
    assert apart.remote_lsn == apart.manifest.durable_lsn == 300
    ahead = chain_states()[3]
    ahead.manifest.durable_lsn = 1000
    assert ahead.remote_lsn == 1000
    ahead.manifest.backup_end_lsn = 1001
    assert ahead.remote_lsn == 0, "not even the base backup can be read"


def test_snapshots_go_on_where_the_chain_was() -> None:
    after = chain_states()
    for state, step in zip(after[1:], [*CHAIN[1:], [Written(1, 1)]], strict=True):
        data = pack_snapshot(state)
        again = unpack_snapshot(data, state.serial, "s")
        assert again == state
        assert pack_snapshot(again) == data
        assert again.after(pack_chain_entry(state, step)[1]).serial == state.serial + 1
