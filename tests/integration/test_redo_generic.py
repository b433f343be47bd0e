"""Redo of generic records against the pages that real servers say they become."""

import pytest

from tests.fixtures.consistency_run import compared_opcodes
from tests.fixtures.postgres_servers import SERVED_MAJORS, PostgresFactory


@pytest.mark.parametrize("major", SERVED_MAJORS)
def test_pages_are_as_postgresql_says(postgres: PostgresFactory, major: int) -> None:
    compared = compared_opcodes(postgres, major, "bloom_load.sql")
    assert compared["Generic/Generic"] > 5000
