"""Redo of hash index records against the pages that real servers say they become.

All opcodes but SPLIT_PAGE, which brings its page as an image: what it left is seen by those after.
"""

import pytest

from tests.fixtures.consistency_run import compared_opcodes
from tests.fixtures.postgres_servers import SERVED_MAJORS, PostgresFactory

OPCODES = (
    "INIT_META_PAGE INIT_BITMAP_PAGE INSERT ADD_OVFL_PAGE SPLIT_ALLOCATE_PAGE SPLIT_COMPLETE "
    "MOVE_PAGE_CONTENTS SQUEEZE_PAGE DELETE SPLIT_CLEANUP UPDATE_META_PAGE VACUUM_ONE_PAGE"
)


@pytest.mark.parametrize("major", SERVED_MAJORS)
def test_pages_are_as_postgresql_says(postgres: PostgresFactory, major: int) -> None:
    compared = compared_opcodes(postgres, major, "hash_load.sql")
    assert {f"Hash/{name}" for name in OPCODES.split()} <= set(compared)
