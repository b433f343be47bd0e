"""Tablespaces, sequences, large objects, checkpoints, WAL segments, settings of the WAL."""

from collections.abc import Sequence
from random import Random

from tools.sql_fuzzer.actions import Action, Step
from tools.sql_fuzzer.state import State

TABLESPACES_MAX = 2


def create_or_drop_tablespace(random: Random, state: State) -> Sequence[Step]:
    """In place, that is below pg_tblspc itself: a standby beside the primary gets its own."""
    if len(state.tablespaces) < TABLESPACES_MAX:
        name = f"space{state.tag}_{state.session}_{state.next_number()}"
        state.tablespaces.append(name)
        return [f"CREATE TABLESPACE {name} LOCATION ''"]
    name = state.tablespaces.pop(random.randrange(TABLESPACES_MAX))
    return [
        f"ALTER TABLE ALL IN TABLESPACE {name} SET TABLESPACE pg_default",
        f"ALTER INDEX ALL IN TABLESPACE {name} SET TABLESPACE pg_default",
        f"DROP TABLESPACE {name}",
    ]


def move_table(random: Random, state: State) -> Sequence[Step]:
    table = state.table(random)
    what = random.choice((f"TABLE {table}", f"INDEX {table}_i{random.randrange(5)}"))
    where = random.choice(("pg_default", *state.tablespaces))
    return [f"ALTER {what} SET TABLESPACE {where}"]


def sequence(random: Random, state: State) -> Sequence[Step]:
    name = f"s{state.session}_{random.randrange(3)}"
    steps = random.choice(
        (
            [f"SELECT count(nextval('{name}')) FROM generate_series(1, {random.randrange(1, 90)})"],
            [f"SELECT setval('{name}', {random.randrange(1, 10**6)}, {random.random() < 0.5})"],
            [f"ALTER SEQUENCE {name} RESTART {random.randrange(1, 999)}"],
            [f"ALTER SEQUENCE {name} INCREMENT {random.choice((1, 7))}"],
            [f"DROP SEQUENCE IF EXISTS {name}"],
        )
    )
    return [f"CREATE SEQUENCE IF NOT EXISTS {name}", *steps]


def unlogged_sequence(random: Random, state: State) -> Sequence[Step]:
    name = f"s{state.session}_{random.randrange(3)}"
    return [
        f"CREATE SEQUENCE IF NOT EXISTS {name}",
        f"ALTER SEQUENCE {name} SET {random.choice(('LOGGED', 'UNLOGGED'))}",
        f"SELECT nextval('{name}')",
    ]


def large_object(random: Random, state: State) -> Sequence[Step]:
    oid = 100_000 + 10 * state.session + random.randrange(3)
    content = (
        f"convert_to(repeat(md5('{random.randrange(99)}'), {random.choice((9, 300))}), 'UTF8')"
    )
    return random.choice(
        (
            [
                f"SELECT lo_create({oid})",
                f"SELECT lo_put({oid}, {random.randrange(9999)}, {content})",
            ],
            [f"SELECT lo_put({oid}, 0, {content})"],
            [f"SELECT lo_unlink({oid})"],
        )
    )


def checkpoint(random: Random, state: State) -> Sequence[Step]:
    return ["CHECKPOINT"]


def switch_wal(random: Random, state: State) -> Sequence[Step]:
    return ["SELECT pg_switch_wal()"]


def compress_wal(random: Random, state: State) -> Sequence[Step]:
    return [f"SET wal_compression = {random.choice(state.compressions)}"]


def full_page_writes(random: Random, state: State) -> Sequence[Step]:
    """Legal for whoever keeps every version: an image more or less makes no other page."""
    return [
        f"ALTER SYSTEM SET full_page_writes = {random.choice(('on', 'on', 'off'))}",
        "SELECT pg_reload_conf()",
    ]


def commit_without_waiting(random: Random, state: State) -> Sequence[Step]:
    return [f"SET synchronous_commit = {random.choice(('on', 'off'))}"]


ACTIONS = [
    Action(create_or_drop_tablespace, 2, in_block=False),
    Action(move_table, 4),
    Action(sequence, 7),
    Action(unlogged_sequence, 2, major_min=15),
    Action(large_object, 3),
    Action(checkpoint, 4),
    Action(switch_wal, 2),
    Action(compress_wal, 3, in_block=False),
    Action(full_page_writes, 1, in_block=False),
    Action(commit_without_waiting, 1, in_block=False),
]
