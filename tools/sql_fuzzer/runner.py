"""Runs the sessions: each a thread with a connection, drawing actions until the time is over."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random

import psycopg

from tools.postgres import Server
from tools.sql_fuzzer import (
    catalogs,
    databases,
    heap,
    indexes,
    multixacts,
    rewrites,
    storage,
    transactions,
)
from tools.sql_fuzzer.actions import Copy, InDatabase, Step
from tools.sql_fuzzer.errors import is_expected, sqlstate
from tools.sql_fuzzer.state import SHARED_ROWS, TABLES, State, create_table

SESSIONS = 6
PREPARED_PER_SESSION = 12
SETTINGS = {
    "allow_in_place_tablespaces": "on",
    "track_commit_timestamp": "on",
    "max_prepared_transactions": str(SESSIONS * PREPARED_PER_SESSION),
    "max_replication_slots": "40",
    "max_wal_size": "512MB",
    "gin_pending_list_limit": "128kB",
    "deadlock_timeout": "50ms",
    "lock_timeout": "300ms",
    "statement_timeout": "10s",
    "log_statement": "none",
    "log_min_error_statement": "panic",
}
"""What the server of a run should be started with; without them some statements only fail."""

THEMES = (heap, indexes, rewrites, transactions, multixacts, databases, storage, catalogs)
BLOCK = "transactions.block"
BLOCK_SHARE = 0.12
"""Of all that is drawn, this much is a transaction of several actions."""


@dataclass
class Report:
    """What a run did: how often each action, and which errors it met, by action and SQLSTATE."""

    seed: int
    runs: Counter[str] = field(default_factory=Counter)
    statements: int = 0
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    """Errors that no statement may end with; the run stopped at the first of each session."""


def run(server: Server, seed: int, seconds: float) -> Report:
    """Make what sessions need, and let them work for `seconds`; they finish their last action."""
    states = prepare(server, seed)
    report, lock = Report(seed), threading.Lock()
    deadline = time.monotonic() + seconds
    with ThreadPoolExecutor(len(states)) as pool:
        for done in pool.map(lambda state: _session(server, seed, state, deadline), states):
            with lock:
                report.runs += done.runs
                report.errors += done.errors
                report.statements += done.statements
                report.failures += done.failures
    return report


def program(seed: int, state: State) -> Iterator[tuple[str, Sequence[Step]]]:
    """The actions of a session, without end: their names and statements."""
    random = Random(f"{seed} {state.session}")
    actions = [a for theme in THEMES for a in theme.ACTIONS if a.major_min <= state.major]
    weights = [action.weight for action in actions]
    in_block = [action for action in actions if action.in_block]
    while True:
        if random.random() < BLOCK_SHARE:
            yield BLOCK, transactions.block(random, state, in_block)
        else:
            (action,) = random.choices(actions, weights)
            yield action.name, action.make(random, state)


def prepare(server: Server, seed: int) -> list[State]:
    """What all sessions share, and what each has; harmless where it is there already."""
    major = server.installation.major
    with server.connect() as connection:
        for statement in shared_setup():
            connection.execute(statement.encode())
        for session in range(SESSIONS):
            for statement in session_setup(session):
                connection.execute(statement.encode())
        kinds = connection.execute(
            "SELECT enumvals FROM pg_settings WHERE name = 'wal_compression'"
        ).fetchone()
        (prepared,) = connection.execute("SHOW max_prepared_transactions").fetchone() or ("0",)
    known = {"off", "on", "pglz", "lz4", "zstd"}
    compressions = ("off", "on")
    if kinds is not None and kinds[0]:
        compressions = tuple(kind for kind in kinds[0] if kind in known)
    return [
        State(session, major, int(prepared) // SESSIONS, compressions, tag=str(seed))
        for session in range(SESSIONS)
    ]


def shared_setup() -> list[str]:
    return [
        "CREATE EXTENSION IF NOT EXISTS bloom",
        "ALTER DATABASE template0 ALLOW_CONNECTIONS true",
        *(
            statement
            for name in ("shared", "crowd")
            for statement in (
                f"CREATE TABLE IF NOT EXISTS {name}(id int PRIMARY KEY, n int, v text) "
                "WITH (fillfactor = 60)",
                f"INSERT INTO {name} SELECT g, 0, 'v' FROM generate_series(1, {SHARED_ROWS}) g "
                "ON CONFLICT DO NOTHING",
            )
        ),
        "CREATE TABLE IF NOT EXISTS child(parent int REFERENCES shared)",
    ]


def session_setup(session: int) -> list[str]:
    return [
        *(create_table(f"t{session}_{number}") for number in range(TABLES)),
        f"CREATE TABLE IF NOT EXISTS u{session}(id int PRIMARY KEY, v text)",
        *indexes.setup(session),
    ]


class Unexpected(Exception):
    """A statement ended with an error that none may end with; the text has both."""


def _session(server: Server, seed: int, state: State, deadline: float) -> Report:
    done = Report(seed)
    try:
        with server.connect() as connection:
            for name, steps in program(seed, state):
                if time.monotonic() > deadline:
                    break
                done.runs[name] += 1
                _execute(server, connection, name, steps, done)
            connection.execute("ROLLBACK")
    except Unexpected as failure:
        done.failures.append(f"session {state.session}: {failure}")
    return done


def _execute(
    server: Server,
    connection: psycopg.Connection[tuple[object, ...]],
    name: str,
    steps: Sequence[Step],
    done: Report,
) -> None:
    """Run statements one by one; raises Unexpected."""
    for step in steps:
        done.statements += 1
        try:
            if isinstance(step, InDatabase):
                _execute_elsewhere(server, step, name, done)
            elif isinstance(step, Copy):
                with connection.cursor().copy(step.statement.encode()) as copy:
                    copy.write(step.lines)
            else:
                connection.execute(step.encode())
        except psycopg.Error as error:
            if not is_expected(error):
                text = f"{name}: {sqlstate(error)}: {error} in: {str(step)[:1000]}"
                raise Unexpected(text) from error
            done.errors[name, sqlstate(error)] += 1


def _execute_elsewhere(server: Server, step: InDatabase, name: str, done: Report) -> None:
    """A database that was not created, or is just being copied, takes no connection."""
    try:
        connection = server.connect(step.dbname)
    except psycopg.OperationalError:
        done.errors[name, "connection"] += 1
        return
    with connection:
        _execute(server, connection, name, step.steps, done)
