"""LSN by time and time by LSN, against PostgreSQL's own words.

pg_waldump has when every transaction ended, pg_xact_commit_timestamp() what SQL sees of it, pg_xact
at an LSN which of them are in it, and recovery with recovery_target_time the one that no longer is.
"""

import bisect
import itertools
import json
import random
import re
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner, Result

from formats import timestamp
from formats.lsn import parse, show
from formats.version import TIME_STEP
from server import cli, timestamps
from server.client import PageClient, PageServerError
from tests.fixtures.postgres_servers import MAJORS
from tools.page_server import PageServer
from tools.postgres import Server, Workspace

SETTINGS = {
    "autovacuum": "off",
    "max_prepared_transactions": "8",
    "track_commit_timestamp": "on",
    "wal_keep_size": "1GB",
}
ENDED = re.compile(
    r"rmgr: Transaction .* lsn: (\S+), .* desc: (?:COMMIT|ABORT)\w* (?:\d+: )?"
    r"(\d{4}-\d\d-\d\d [\d:.]+)"
)
STOPPED = re.compile(r"recovery stopping before (?:commit|abort) .*, time (.*)")


class Commit(NamedTuple):
    xid: int
    time: int
    lsn_after: int  # PostgreSQL's insert LSN when it was over


class Work:
    """Transactions one after the other; commits are noted."""

    def __init__(self, primary: Server, seed: int) -> None:
        self.primary = primary
        self.chance = random.Random(seed)
        self.commits: list[Commit] = []
        primary.sql("CREATE TABLE t(a int)")

    def run(self, count: int) -> None:
        with self.primary.connect() as connection:
            connection.autocommit = True
            for _ in range(count):
                ends = self.chance.choice(("COMMIT", "COMMIT", "ROLLBACK", "PREPARE", "DROP"))
                connection.execute("BEGIN")
                connection.execute("INSERT INTO t VALUES (1)")
                xid = connection.execute("SELECT txid_current()").fetchone()[0]
                if ends == "DROP":
                    connection.execute("CREATE TABLE gone(a int)")
                    connection.execute("DROP TABLE gone")
                if ends == "PREPARE":
                    connection.execute("PREPARE TRANSACTION 'p'")
                    last = self.chance.choice(("COMMIT", "ROLLBACK"))
                    connection.execute(f"{last} PREPARED 'p'")
                else:
                    last = "COMMIT" if ends == "DROP" else ends
                    connection.execute(last)
                if last == "COMMIT":
                    self.note(connection, xid)
                time.sleep(self.chance.choice((0, 0, 0.004, 0.012, 0.03)))

    def note(self, connection, xid: int) -> None:
        at, lsn = connection.execute(
            "SELECT pg_xact_commit_timestamp(%s::text::xid), pg_current_wal_insert_lsn()", (xid,)
        ).fetchone()
        self.commits.append(Commit(xid, timestamp.from_datetime(at), parse(lsn)))


def ends_in_wal(primary: Server, start: int, end: int) -> list[tuple[int, int]]:
    """(start of the record, time) of every transaction's end."""
    wal = str(primary.data_dir / "pg_wal")
    said = primary.pg_waldump("-p", wal, "-s", show(start), "-e", show(end), "-r", "Transaction")
    return [(parse(lsn), timestamps.parse(at)) for lsn, at in ENDED.findall(said)]


def check_times(ends: list[tuple[int, int]], client: PageClient, horizon: int) -> int:
    """`lsn at` at and around every time in WAL; how many answers there were."""
    rising = list(itertools.accumulate((at for _, at in ends), max))
    starts = [start for start, _ in ends]
    asked = {at + more for at in rising[-25:] for more in (-1, 0, TIME_STEP - 1, TIME_STEP)}
    answers = 0
    for at in sorted(asked):
        if at < rising[0] + TIME_STEP and is_too_old(client, at):
            assert not answers, "a time before it could be answered"
            continue
        lsn, _, _ = client.lsn_at(at)
        answers += 1
        count = bisect.bisect_left(starts, lsn)
        stop = bisect.bisect_right(rising, at)
        stop_before = bisect.bisect_right(rising, at - TIME_STEP)
        assert stop_before <= count <= stop, timestamp.show(at)
        assert lsn >= horizon
    return answers


def is_too_old(client: PageClient, at: int) -> bool:
    try:
        client.lsn_at(at)
    except PageServerError as error:
        return "cannot be read" in str(error)
    return False


def check_commits(commits: list[Commit], client: PageClient) -> int:
    """Both ways, commit by commit; how many states in between were looked at."""
    looked = 0
    for commit, following in itertools.pairwise(commits):
        found = timestamps.parse(client.time_at(commit.lsn_after))
        assert commit.time - TIME_STEP < found <= commit.time
        asked = commit.time + TIME_STEP
        if asked >= following.time:
            continue
        lsn, _, is_final = client.lsn_at(asked)
        assert is_final
        assert lsn < following.lsn_after
        assert committed(client, commit.xid, lsn)
        assert not committed(client, following.xid, lsn)
        looked += 1
    return looked


def committed(client: PageClient, xid: int, lsn: int) -> bool:
    segment = client.slru_segment(0, xid // (32768 * 32), lsn)
    at = xid % (32768 * 32)
    return segment[at // 4] >> at % 4 * 2 & 3 == 1


def command(server: PageServer, *arguments: str) -> Result:
    return CliRunner().invoke(cli.app, [*arguments, "--connect", server.address])


@pytest.mark.parametrize("major", MAJORS)
def test_times_are_postgres_own(postgres, workspace, page_server, major):
    primary = postgres(major, SETTINGS)
    backup = primary.base_backup(workspace.new_path("backup"))
    work = Work(primary, major)
    work.run(5)
    server = page_server(primary, "--set", "flush_seconds_max=1")
    with server.client() as client:
        horizon = parse(str(client.status()["horizon_lsn"]))
    time.sleep(1.1)  # the backup's checkpoint is known to a second
    for way_to_stop in (server.stop, server.kill, None):
        first = len(work.commits)
        work.run(20)
        end = parse(primary.sql("SELECT pg_current_wal_flush_lsn()")[0][0])
        server.wait_until_ready(end)
        ends = ends_in_wal(primary, horizon, end)
        with server.client() as client:
            assert check_times(ends, client, horizon) > 50
            assert check_commits(work.commits[first:], client) > 3
        if way_to_stop is not None:
            way_to_stop()
            server.start()
            server.wait_until_ready(end)
    check_commands(server, work.commits[-1], end)
    before, after = next(
        (before, after)
        for before, after in itertools.pairwise(ends)
        if before[1] + 2 * TIME_STEP < after[1] and before[0] > horizon
    )
    at = before[1] + TIME_STEP
    with server.client() as client:
        assert client.lsn_at(at)[0] == after[0]
    assert recovery_stops_before(workspace, primary, backup, at) == after[1]


def recovery_stops_before(workspace: Workspace, primary: Server, backup: Path, at: int) -> int:
    """The time of the transaction before which PostgreSQL stops, with a time as its target."""
    settings = {
        "restore_command": f'cp "{primary.data_dir}/pg_wal/%f" "%p"',
        "recovery_target_time": timestamp.show(at),
        "recovery_target_action": "shutdown",
        "hot_standby": "off",
        "track_commit_timestamp": "on",
        "max_prepared_transactions": "8",
        "fsync": "off",
    }
    data_dir = workspace.copy(backup, "recovery")
    (data_dir / "recovery.signal").touch()
    recovering = workspace.server(int(primary.installation.major), data_dir, settings)
    recovering.launch().wait(60)
    said = STOPPED.search(recovering.log_path.read_text())
    assert said is not None, recovering.log_tail()
    return timestamps.parse(said[1])


def check_commands(server: PageServer, last: Commit, end: int) -> None:
    """The newest, as a person asks for it."""
    at = timestamp.show(last.time + TIME_STEP)
    found = json.loads(command(server, "lsn", "--at", at, "--json").stdout)
    assert parse(found["lsn"]) >= last.lsn_after
    done = command(server, "lsn", "--at", "now")
    assert parse(done.stdout.strip()) >= end
    assert "later WAL may" in done.stderr
    done = command(server, "point", "create", "late", "--at", at)
    assert found["lsn"] in done.stdout and ("later WAL may" in done.stderr) != found["is_final"]
    assert command(server, "point", "create", "later", "--at", "2999-01-01").exit_code == 2
    assert command(server, "point", "create", "today", "--at", "now").exit_code == 0
    for point in json.loads(command(server, "point", "list", "--json").stdout):
        shown = command(server, "time", "--at", point["lsn"]).stdout.strip()
        assert point["commit_time"] == shown
    done = command(server, "lsn", "--at", "2001-01-01 00:00")
    assert done.exit_code == 1
    assert "cannot be read: the oldest one is" in done.stderr
    shown = command(server, "time", "--at", show(end)).stdout.strip()
    assert timestamps.parse(shown) > last.time - TIME_STEP
    status = json.loads(command(server, "status", "--json").stdout)
    assert timestamps.parse(status["commit_time"]) >= timestamps.parse(shown)
    assert timestamps.parse(status["horizon_time"]) < last.time
