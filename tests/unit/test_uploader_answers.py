"""Answers that are lost: what was done all the same is not done once more."""

from pathlib import Path

import pytest

from tests.fixtures.memory_bucket import Fault
from tests.fixtures.uploading import Uploading, check_bucket, grow, small_store


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
