"""`freshness`: from a commit on the primary until its page can be read here, p50 and p99.

The peer is a hot standby: until its replay has passed the same commit. Both are asked by the same
client at once after the commit, in turns, while pgbench runs at a modest rate.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import quantiles

import psycopg

from formats import lsn as lsn_text
from server.client import PageClient
from tools.bench.attached import attached, primary_of, relation_of
from tools.bench.bench import Bench
from tools.bench.row import Row
from tools.postgres import Server
from tools.postgres_binaries import WHEEL_MAJOR

NAME = "freshness"
COMMITS = 400
COMMITS_PER_SECOND = 200
RATE = 200
PEER = "hot standby has replayed it"


def run(bench: Bench) -> list[Row]:
    with bench.step(NAME), ExitStack() as stack:
        primary = stack.enter_context(primary_of(bench, 2))
        primary.sql("create table freshness as select 1 as value")
        standby = _standby(bench, primary)
        stack.callback(standby.stop, "immediate")
        server = stack.enter_context(attached(bench, primary))
        client = stack.enter_context(server.client())
        writer = stack.enter_context(primary.connect())
        reader = stack.enter_context(standby.connect())
        seconds = round(COMMITS / COMMITS_PER_SECOND * 4)
        load = primary.start_pgbench("-n", "-R", str(RATE), "-T", str(seconds), "-c", "2")
        stack.callback(load.kill)
        relation = relation_of(primary, "freshness")
        client.get_page(*relation, 0, 0, _commit(writer)[0])
        pairs = bench.in_turns(
            COMMITS,
            lambda: _seconds(writer, lambda lsn: _read(client, relation, lsn)),
            lambda: _seconds(writer, lambda lsn: _replayed(reader, lsn)),
        )
    rows = []
    for name, index in (("p50", 49), ("p99", 98)):
        ours, theirs = (_percentile(values, index) for values in zip(*pairs, strict=True))
        rows.append(Row(NAME, name, ours, "ms", PEER, theirs, ours / theirs))
    return rows


def _percentile(seconds: tuple[float, ...], index: int) -> float:
    if len(seconds) < 2:
        return 1e3 * seconds[0]
    return 1e3 * quantiles(seconds, n=100, method="inclusive")[index]


def _standby(bench: Bench, primary: Server) -> Server:
    data_dir = primary.base_backup(bench.workspace.new_path("standby"))
    (data_dir / "standby.signal").touch()
    return bench.workspace.server(
        WHEEL_MAJOR, data_dir, {"primary_conninfo": primary.conninfo(), "hot_standby": "on"}
    ).start()


def _commit(writer: psycopg.Connection[tuple[object, ...]]) -> tuple[int, float]:
    """The end of a commit, and when it returned."""
    writer.execute("update freshness set value = value + 1")
    committed = time.perf_counter()
    row = writer.execute("select pg_current_wal_flush_lsn()::text").fetchone()
    assert row is not None, "a function gives one row"
    return lsn_text.parse(str(row[0])), committed


def _seconds(
    writer: psycopg.Connection[tuple[object, ...]], wait_for: Callable[[int], None]
) -> float:
    lsn, committed = _commit(writer)
    wait_for(lsn)
    seconds = time.perf_counter() - committed
    time.sleep(1 / COMMITS_PER_SECOND)
    return seconds


def _read(client: PageClient, relation: tuple[int, int, int], lsn: int) -> None:
    client.get_page(*relation, 0, 0, lsn)


def _replayed(reader: psycopg.Connection[tuple[object, ...]], lsn: int) -> None:
    statement = "select pg_last_wal_replay_lsn() >= %s::pg_lsn"
    text = lsn_text.show(lsn)
    while True:
        row = reader.execute(statement, (text,)).fetchone()
        if row is not None and row[0]:
            return
