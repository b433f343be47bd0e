"""Databases: created by either strategy, used, moved to other tablespaces, dropped."""

from collections.abc import Sequence
from random import Random

from tools.sql_fuzzer.actions import Action, InDatabase, Step
from tools.sql_fuzzer.state import State

SESSIONS_WITH_DATABASES = 2
DATABASES_MAX = 2
COPIED_THROUGH_WAL = "_wal"
"""The end of the name of a database whose pages, or whose template's, came through WAL."""


def create_or_drop(random: Random, state: State) -> Sequence[Step]:
    if state.session >= SESSIONS_WITH_DATABASES:
        return []
    if len(state.databases) >= DATABASES_MAX:
        name = state.databases.pop(random.randrange(DATABASES_MAX))
        return [f"DROP DATABASE IF EXISTS {name}{random.choice(('', ' WITH (FORCE)'))}"]
    template = random.choice(("template1", "template0", *state.databases))
    by_wal = state.major > 14 and random.random() < 0.5
    how = "" if state.major == 14 else f" STRATEGY {'wal_log' if by_wal else 'file_copy'}"
    lossy = by_wal or template.endswith(COPIED_THROUGH_WAL)
    name = f"d{state.tag}_{state.session}_{state.next_number()}{COPIED_THROUGH_WAL * lossy}"
    where = random.choice(("", "", *(f" TABLESPACE {space}" for space in state.tablespaces)))
    state.databases.append(name)
    return [
        f"CREATE DATABASE {name} TEMPLATE {template}{how}{where}",
        InDatabase(
            name,
            (
                "CREATE TABLE IF NOT EXISTS made(a int PRIMARY KEY, b text)",
                "INSERT INTO made SELECT g, 'b' FROM generate_series(1, 500) g "
                "ON CONFLICT (a) DO UPDATE SET b = 'c'",
                "CREATE INDEX IF NOT EXISTS made_b ON made USING brin (b)",
            ),
        ),
    ]


def use(random: Random, state: State) -> Sequence[Step]:
    if not state.databases:
        return []
    statements = (
        f"UPDATE made SET b = b || 'x' WHERE a % {random.randrange(2, 9)} = 0",
        "VACUUM made",
        "VACUUM FULL pg_class",
        "REINDEX TABLE pg_class",
        "CREATE TABLE IF NOT EXISTS other AS SELECT * FROM made",
        "DROP TABLE IF EXISTS other",
        "VACUUM (FREEZE)",
        "TRUNCATE made",
        "ANALYZE",
        "INSERT INTO made SELECT g, 'z' FROM generate_series(501, 900) g ON CONFLICT DO NOTHING",
    )
    chosen = tuple(random.choice(statements) for _ in range(random.randrange(1, 5)))
    return [InDatabase(random.choice(state.databases), chosen)]


def move(random: Random, state: State) -> Sequence[Step]:
    if not state.databases:
        return []
    where = random.choice(("pg_default", *state.tablespaces))
    return [f"ALTER DATABASE {random.choice(state.databases)} SET TABLESPACE {where}"]


ACTIONS = [
    Action(create_or_drop, 5, in_block=False),
    Action(use, 4, in_block=False),
    Action(move, 2, in_block=False),
]
