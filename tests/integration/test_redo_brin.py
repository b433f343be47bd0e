"""Redo of BRIN index records against the pages that real servers say they become."""

import pytest

from tests.fixtures.consistency_run import compared_opcodes
from tests.fixtures.postgres_servers import SERVED_MAJORS, PostgresFactory

OPCODES = (
    "CREATE_INDEX INSERT INSERT+INIT UPDATE UPDATE+INIT SAMEPAGE_UPDATE REVMAP_EXTEND DESUMMARIZE"
)


@pytest.mark.parametrize("major", SERVED_MAJORS)
def test_pages_are_as_postgresql_says(postgres: PostgresFactory, major: int) -> None:
    compared = compared_opcodes(postgres, major, "brin_load.sql")
    assert {f"BRIN/{name}" for name in OPCODES.split()} <= set(compared)
