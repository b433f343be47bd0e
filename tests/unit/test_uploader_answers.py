"""Answers that are lost: what was done all the same is not done once more."""

from pathlib import Path
from typing import Any

import pytest

from formats.bucket import JournalAdded
from formats.bucket_state import BucketState
from formats.manifest import Manifest
from formats.manifest_record import Identity
from formats.timeline_history import HistoryEntry
from server.backup.journal_shipping import JournalShipping
from server.backup.local_state import Position
from tests.fixtures.memory_bucket import Fault
from tests.fixtures.uploading import Uploading, check_bucket, grow, small_store
from tests.fixtures.wal_builder import MIB


@pytest.mark.parametrize("pieces_before", [0, 1])
def test_an_entry_whose_answer_was_lost_and_which_the_heartbeat_finds(
    tmp_path: Path, pieces_before: int
) -> None:
    """Its pieces of WAL counted as sent and not named: they were named once more, for which the
    server was fenced off, or waited for layers, and so did all WAL behind them."""
    small = small_store(tmp_path)
    uploading = Uploading(small)
    for mark in range(pieces_before):
        grow(small, mark)
    uploading.run(12)
    end = grow(small, 7)
    uploading.client.fail("put_new", Fault.AFTER, name="manifest/")
    uploading.client.fail("put_new", Fault.BEFORE, name="manifest/", times=5)
    uploading.run(60)
    assert uploading.state.remote_lsn == uploading.uploader.status.remote_lsn == end
    end = grow(small, 8)
    uploading.run(60)
    assert uploading.state.remote_lsn == uploading.uploader.status.remote_lsn == end
    assert uploading.uploader.is_done
    check_bucket(uploading)


class FirstTimeline:
    """A journal as far as it is asked here."""

    def history(self, timeline: int) -> list[HistoryEntry]:
        return []


def test_a_piece_of_wal_that_comes_after_layers_that_have_it() -> None:
    """The next one was to begin behind it, where the journal here is gone by then: no WAL was sent
    until there were new layers."""
    journal: Any = FirstTimeline()
    shipping = JournalShipping(journal, MIB, 10.0, 16 * MIB, lambda: 0.0)
    manifest = Manifest(identity=Identity("a" * 32, "b" * 32, 7, 180006, MIB))
    manifest.durable_lsn = 5 * MIB + 100
    shipping.sent(JournalAdded(1, 3 * MIB, 3 * MIB + 50, 1, 9, 0))
    position = Position(1, 5 * MIB + 300, 1)
    piece = shipping.next_piece(BucketState(manifest), None, position, at_once=True)
    assert piece == (1, 5 * MIB, 5 * MIB + 300)
    assert not shipping.unnamed
