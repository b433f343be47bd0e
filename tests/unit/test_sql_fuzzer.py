"""The fuzzer without a server: a seed gives the same statements again, and all themes are drawn."""

from itertools import islice

import psycopg
import pytest

from tools.sql_fuzzer.errors import is_expected
from tools.sql_fuzzer.runner import BLOCK, THEMES, program
from tools.sql_fuzzer.state import State


def drawn(seed: int, session: int = 0, major: int = 18, count: int = 300) -> list:
    return list(islice(program(seed, State(session, major, prepared_max=12)), count))


def test_a_seed_and_a_session_say_everything():
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert drawn(1) != drawn(1, session=1)


@pytest.mark.parametrize("major", [14, 18])
def test_every_action_is_drawn_where_its_statements_exist(major):
    names = {name for name, _ in drawn(1, major=major, count=6000)}
    known = {a.name: a.major_min for theme in THEMES for a in theme.ACTIONS}
    assert names == {BLOCK, *(name for name, major_min in known.items() if major_min <= major)}


def test_a_block_ends_what_it_begins():
    """No action inside opens or ends a transaction of its own."""
    for name, steps in drawn(3, count=2000):
        if name == BLOCK:
            ends = [step for step in steps if step in ("BEGIN", "COMMIT", "ROLLBACK")]
            assert ends[0] == steps[0] == "BEGIN"
            assert len(ends) == 2 and ends[1] == steps[-1]


def test_errors_of_the_server_itself_are_not_expected():
    assert is_expected(psycopg.errors.LockNotAvailable())
    assert is_expected(psycopg.errors.InternalError_("tuple concurrently updated"))
    for error in (
        psycopg.errors.InternalError_("index is corrupted"),
        psycopg.errors.DataCorrupted("invalid page in block 7"),
        psycopg.errors.SyntaxError(),
        psycopg.errors.AdminShutdown(),
        psycopg.OperationalError("server closed the connection unexpectedly"),
    ):
        assert not is_expected(error)
