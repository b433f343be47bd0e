"""Oracle B, bounded: seeds that once failed, and a short run on one version.

`make oracle-b` is the long run on all of them.
"""

from contextlib import ExitStack
from random import Random

import pytest

from tests.fixtures.postgres_servers import SERVED_MAJORS, require_postgres
from tools.forged_checkpoint import set_counters
from tools.sql_fuzzer import SETTINGS, run
from tools.standby_oracle import StandbyOracle

REGRESSIONS: list[tuple[int, int, str]] = []
"""(seed, major version, what went wrong)"""
BOUNDED = (2026, Random(2026).choice(SERVED_MAJORS), "nothing, as far as is known")


@pytest.mark.parametrize(("seed", "major", "why"), [BOUNDED, *REGRESSIONS], ids=str)
def test_every_page_is_as_in_a_standby(workspace, seed, major, why):
    require_postgres(major)
    with ExitStack() as resources:
        oracle = StandbyOracle(workspace, resources, major, seed)
        outcome = oracle.run(lsn_count=2, seconds=3.0)
    differences = [str(d) for _, result in outcome.results for d in result.differences]
    assert differences == [], f"once it was: {why}"
    assert outcome.failures == []
    assert outcome.random_lsns == 2
    assert outcome.blocks > 20_000


def test_counters_go_where_they_are_set(postgres):
    """OIDs that were given away come again; the server goes on as if nothing was."""
    primary = postgres(14, SETTINGS)
    primary.sql("CREATE TABLE first(a int)")
    (oid,) = primary.sql("SELECT 'first'::regclass::oid::bigint")[0]
    primary.sql("DROP TABLE first")
    for xid in (50_000, 500_000):
        primary.stop()
        set_counters(primary, next_oid=oid, next_xid=xid)
        primary.start()
        assert xid <= primary.sql("SELECT txid_current()")[0][0] < xid + 100
        primary.sql("CREATE TABLE again(a int)")
        (again,) = primary.sql("SELECT 'again'::regclass::oid::bigint")[0]
        assert oid <= again <= oid + 3
        primary.sql("DROP TABLE again")
        primary.sql("CHECKPOINT")
    assert run(primary, 7, 1.0).failures == []
