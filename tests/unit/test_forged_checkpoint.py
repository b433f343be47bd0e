"""A checkpoint record of our own, behind WAL that ends anywhere in a page."""

import pytest

from tests.fixtures.wal_builder import MAGICS, PAGE, Record, WalBuilder
from tests.fixtures.wal_reading import read
from tools.forged_checkpoint import checkpoint_record, in_pages


@pytest.mark.parametrize("space", [0, 8, 24, 104, 112, 120, 2000])
def test_it_is_read_back_whatever_space_is_left(space: int) -> None:
    wal = WalBuilder()
    wal.add(Record(main=b"first"))
    length = PAGE - space - wal.lsn % PAGE - 24 - 5
    end = wal.add(Record(main=bytes(length), long_main=True))
    assert -end % PAGE == space
    main = bytes(range(88))
    wal.data += in_pages(checkpoint_record(main, wal.previous), end, MAGICS[18], 1)
    assert len(wal.data) % PAGE == 0
    found, _ = read(wal, zeros_end=True)
    assert found[-1][2] == Record(rmgr=0, info=0, main=main)
    assert found[-2][1] == end
