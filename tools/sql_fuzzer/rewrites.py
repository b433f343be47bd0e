"""Statements that give a relation new files: rewrites, clusters, views, and creates that abort."""

from collections.abc import Sequence
from random import Random

from tools.sql_fuzzer.actions import Action, Step
from tools.sql_fuzzer.state import COLUMNS, State, create_table, rows


def vacuum_full(random: Random, state: State) -> Sequence[Step]:
    return [f"VACUUM ({random.choice(('FULL', 'FULL, FREEZE'))}) {state.table(random)}"]


def cluster(random: Random, state: State) -> Sequence[Step]:
    table = state.table(random)
    return [
        f"CREATE INDEX IF NOT EXISTS {table}_i0 ON {table}(id)",
        f"CLUSTER {table} USING {table}_i0",
    ]


def set_logged(random: Random, state: State) -> Sequence[Step]:
    table = state.table(random)
    return [
        f"ALTER TABLE {table} SET {random.choice(('LOGGED', 'LOGGED', 'UNLOGGED'))}",
        f"UPDATE {table} SET w = 7 WHERE id % 11 = 0",
    ]


def alter_type(random: Random, state: State) -> Sequence[Step]:
    kind = random.choice(("bigint", "int"))
    return [f"ALTER TABLE {state.table(random)} ALTER COLUMN w TYPE {kind}"]


def alter_columns(random: Random, state: State) -> Sequence[Step]:
    table = state.table(random)
    default = random.choice(("", " DEFAULT 5", " DEFAULT random()"))
    return [
        f"ALTER TABLE {table} ADD COLUMN extra float{default}",
        f"UPDATE {table} SET extra = 1 WHERE id % 13 = 0",
        f"ALTER TABLE {table} DROP COLUMN extra",
    ]


def materialized_view(random: Random, state: State) -> Sequence[Step]:
    view = f"v{state.session}"
    return random.choice(
        (
            [
                f"CREATE MATERIALIZED VIEW IF NOT EXISTS {view} AS "
                f"SELECT DISTINCT id FROM t{state.session}_0 WHERE id IS NOT NULL",
                f"CREATE UNIQUE INDEX IF NOT EXISTS {view}_i ON {view}(id)",
            ],
            [f"REFRESH MATERIALIZED VIEW {view}"],
            [f"REFRESH MATERIALIZED VIEW CONCURRENTLY {view}"],
            [f"REFRESH MATERIALIZED VIEW {view} WITH NO DATA"],
            [f"DROP MATERIALIZED VIEW IF EXISTS {view}"],
        )
    )


def create_as(random: Random, state: State) -> Sequence[Step]:
    name, kind = f"c{state.session}", random.choice(("TABLE", "TABLE", "UNLOGGED TABLE"))
    return [
        f"DROP TABLE IF EXISTS {name}",
        f"CREATE {kind} {name}({COLUMNS}) AS {rows(random, 3000)}",
    ]


def aborted_create(random: Random, state: State) -> Sequence[Step]:
    """Files that come and go with a transaction, indexed and grown meanwhile."""
    name = f"a{state.session}"
    return [
        "BEGIN",
        create_table(name),
        f"CREATE INDEX ON {name} USING gist (p)",
        f"INSERT INTO {name}({COLUMNS}) {rows(random, 2000)}",
        f"CREATE INDEX ON {name}(v)",
        *(["CHECKPOINT"] if random.random() < 0.3 else []),
        *([f"TRUNCATE {name}"] if random.random() < 0.3 else []),
        "ROLLBACK",
    ]


def aborted_create_in_subtransaction(random: Random, state: State) -> Sequence[Step]:
    name, table = f"a{state.session}", state.table(random)
    return [
        "BEGIN",
        f"INSERT INTO {table}({COLUMNS}) {rows(random, 20)}",
        "SAVEPOINT a",
        create_table(name),
        f"INSERT INTO {name}({COLUMNS}) {rows(random, 500)}",
        "SAVEPOINT b",
        f"TRUNCATE {name}",
        f"TRUNCATE {table}",
        "ROLLBACK TO b" if random.random() < 0.5 else "RELEASE b",
        "ROLLBACK TO a",
        f"UPDATE {table} SET w = 3 WHERE id % 5 = 0",
        random.choice(("COMMIT", "ROLLBACK")),
    ]


def drop_and_create(random: Random, state: State) -> Sequence[Step]:
    """Many small relations at once, with an init fork or without, dropped together."""
    names = [f"n{state.session}_{i}" for i in range(random.randrange(1, 12))]
    kind = random.choice(("TABLE", "TABLE", "UNLOGGED TABLE"))
    return [
        f"DROP TABLE IF EXISTS {', '.join(names)}",
        *(f"CREATE {kind} {name}(a int PRIMARY KEY, b text)" for name in names),
        *(f"INSERT INTO {name} SELECT g, 'n' FROM generate_series(1, 9) g" for name in names),
    ]


def temporary(random: Random, state: State) -> Sequence[Step]:
    return [
        "DROP TABLE IF EXISTS pg_temp.temporary",
        f"CREATE TEMP TABLE temporary({COLUMNS}) AS {rows(random, 500)}",
        "CREATE INDEX ON temporary(v)",
    ]


def partitioned(random: Random, state: State) -> Sequence[Step]:
    name = f"q{state.session}"
    return [
        f"DROP TABLE IF EXISTS {name}",
        f"CREATE TABLE {name}(a int, b text) PARTITION BY HASH (a)",
        *(
            f"CREATE TABLE {name}_{i} PARTITION OF {name} "
            f"FOR VALUES WITH (MODULUS 3, REMAINDER {i})"
            for i in range(3)
        ),
        f"CREATE INDEX ON {name}(a)",
        f"INSERT INTO {name} SELECT g, 'b' FROM generate_series(1, 300) g",
        f"UPDATE {name} SET a = a + 1 WHERE a % 7 = 0",
        f"ALTER TABLE {name} DETACH PARTITION {name}_1",
        f"DROP TABLE {name}_1",
    ]


ACTIONS = [
    Action(vacuum_full, 4, in_block=False),
    Action(cluster, 3),
    Action(set_logged, 4),
    Action(alter_type, 2),
    Action(alter_columns, 2),
    Action(materialized_view, 4),
    Action(create_as, 2),
    Action(aborted_create, 3, in_block=False),
    Action(aborted_create_in_subtransaction, 3, in_block=False),
    Action(drop_and_create, 3),
    Action(temporary, 2),
    Action(partitioned, 2),
]
