"""Catalogs and messages: mapped relations rewritten, DDL, replication origins, logical messages."""

from collections.abc import Sequence
from random import Random

from tools.sql_fuzzer.actions import Action, Step
from tools.sql_fuzzer.state import State

MAPPED = ("pg_class", "pg_attribute", "pg_proc", "pg_type")
SHARED = ("pg_database", "pg_authid", "pg_tablespace", "pg_shdepend")
OTHERS = ("pg_depend", "pg_index", "pg_statistic", "pg_largeobject", "pg_description")


def vacuum_full_catalog(random: Random, state: State) -> Sequence[Step]:
    """The relation map changes with a mapped one."""
    return [f"VACUUM FULL {random.choice((*MAPPED, *MAPPED, *SHARED, *OTHERS))}"]


def reindex_catalog(random: Random, state: State) -> Sequence[Step]:
    index = random.choice(("pg_class_oid_index", "pg_class_relname_nsp_index",
                           "pg_attribute_relid_attnum_index", "pg_database_oid_index"))  # fmt: skip
    table = random.choice((*MAPPED, *SHARED, *OTHERS))
    return [random.choice((f"REINDEX INDEX {index}", f"REINDEX TABLE {table}"))]


def vacuum_catalog(random: Random, state: State) -> Sequence[Step]:
    return [f"VACUUM {random.choice((*MAPPED, *SHARED, *OTHERS))}"]


def ddl(random: Random, state: State) -> Sequence[Step]:
    name, number = f"l{state.session}", random.randrange(5)
    return random.choice(
        (
            [f"DROP TYPE IF EXISTS {name}_type", f"CREATE TYPE {name}_type AS ENUM ('a', 'b')"],
            [f"CREATE OR REPLACE FUNCTION {name}_{number}() RETURNS int LANGUAGE sql "
             f"AS 'SELECT {random.randrange(9)}'"],
            [f"DROP FUNCTION IF EXISTS {name}_{number}()"],
            [f"COMMENT ON TABLE {state.table(random)} IS '{'c' * random.randrange(4000)}'"],
            [f"DROP STATISTICS IF EXISTS {name}_stat",
             f"CREATE STATISTICS {name}_stat ON id, k FROM {state.table(random)}"],
            [f"CREATE SCHEMA IF NOT EXISTS {name}", f"DROP SCHEMA {name} CASCADE"],
            [f"CREATE OR REPLACE VIEW {name}_view AS SELECT {random.randrange(9)} AS a"],
            [f"DROP ROLE IF EXISTS {name}", f"CREATE ROLE {name}"],
            [f"GRANT SELECT ON {state.table(random)} TO pg_monitor"],
        )
    )  # fmt: skip


def message(random: Random, state: State) -> Sequence[Step]:
    length = random.choice((10, 3000, 100_000))
    transactional = random.choice(("true", "false"))
    return [f"SELECT pg_logical_emit_message({transactional}, 'fuzz', repeat('m', {length}))"]


def origin(random: Random, state: State) -> Sequence[Step]:
    name, lsn = f"origin{state.session}_{random.randrange(3)}", f"0/{random.randrange(16**7):X}"
    table = state.table(random)
    return random.choice(
        (
            [f"SELECT pg_replication_origin_create('{name}')"],
            [f"SELECT pg_replication_origin_drop('{name}')"],
            [f"SELECT pg_replication_origin_advance('{name}', '{lsn}')"],
            [
                f"SELECT pg_replication_origin_session_setup('{name}')",
                "BEGIN",
                f"SELECT pg_replication_origin_xact_setup('{lsn}', now())",
                f"INSERT INTO {table}(id) VALUES (1)",
                random.choice(("COMMIT", "ROLLBACK")),
                "SELECT pg_replication_origin_session_reset()",
            ],
        )
    )


def notify(random: Random, state: State) -> Sequence[Step]:
    return ["LISTEN fuzz", f"NOTIFY fuzz, '{random.randrange(99)}'"]


def standby_snapshot(random: Random, state: State) -> Sequence[Step]:
    return ["SELECT pg_log_standby_snapshot()"]


ACTIONS = [
    Action(vacuum_full_catalog, 2, in_block=False),
    Action(reindex_catalog, 2),
    Action(vacuum_catalog, 3, in_block=False),
    Action(ddl, 5),
    Action(message, 3),
    Action(origin, 4, in_block=False),
    Action(notify, 1),
    Action(standby_snapshot, 1, major_min=16),
]
