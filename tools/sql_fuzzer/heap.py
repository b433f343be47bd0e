"""Rows: inserted, updated, deleted, locked, toasted, copied; and VACUUM."""

from collections.abc import Sequence
from random import Random

from tools.sql_fuzzer.actions import Action, Copy, Step
from tools.sql_fuzzer.state import COLUMNS, State, create_table, rows, some_ids


def insert(random: Random, state: State) -> Sequence[Step]:
    count_max = random.choice((5, 100, 100, 1000, 4000))
    return [f"INSERT INTO {state.table(random)}({COLUMNS}) {rows(random, count_max)}"]


def insert_singly(random: Random, state: State) -> Sequence[Step]:
    table = state.table(random)
    return [
        f"INSERT INTO {table}({COLUMNS}) {rows(random, 2)}" for _ in range(random.randrange(1, 9))
    ]


def insert_on_conflict(random: Random, state: State) -> Sequence[Step]:
    """Speculative insertions, some of which are taken back."""
    first = random.randrange(1, 300)
    return [
        f"INSERT INTO u{state.session} SELECT g, 'x' FROM generate_series({first}, {first + 40}) g "
        f"ON CONFLICT (id) DO {random.choice(('NOTHING', 'UPDATE SET v = EXCLUDED.v'))}",
        f"DELETE FROM u{state.session} WHERE id % {random.randrange(2, 9)} = 0",
    ]


def update(random: Random, state: State) -> Sequence[Step]:
    change = random.choice(
        ("w = w + 1", "k = k + 1", "v = v || 'y'", "id = id + 1, tags = tags || id", "p = p",
         "w = w - 1, v = md5(v)", "r = int4range(id, id + 3)")
    )  # fmt: skip
    return [f"UPDATE {state.table(random)} SET {change} WHERE {some_ids(random)}"]


def update_repeatedly(random: Random, state: State) -> Sequence[Step]:
    """Chains of versions in a page, pruned on the way."""
    table, row = state.table(random), random.choice(("id % 97 = 3", "id = 1", "id < 20"))
    one = f"UPDATE {table} SET w = w + 1 WHERE {row}"
    return [one] * random.randrange(2, 25) + [f"SELECT count(*) FROM {table} WHERE {row}"]


def delete(random: Random, state: State) -> Sequence[Step]:
    return [f"DELETE FROM {state.table(random)} WHERE {some_ids(random)}"]


def delete_most_and_vacuum(random: Random, state: State) -> Sequence[Step]:
    """Index pages get empty, the table is cut; then it grows again."""
    table = state.table(random)
    where = random.choice(("", " WHERE id > 50", f" WHERE {some_ids(random)}"))
    return [
        f"DELETE FROM {table}{where}",
        f"VACUUM {table}",
        *(["SELECT txid_current()"] * random.randrange(3)),
        f"VACUUM {table}",
        *insert(random, state),
    ]


def vacuum(random: Random, state: State) -> Sequence[Step]:
    options = random.choice(
        ("", "FREEZE", "FREEZE, DISABLE_PAGE_SKIPPING", "INDEX_CLEANUP on", "INDEX_CLEANUP off",
         "TRUNCATE off", "ANALYZE", "DISABLE_PAGE_SKIPPING", "PARALLEL 2")
    )  # fmt: skip
    return [f"VACUUM {f'({options}) ' if options else ''}{state.table(random)}"]


def truncate(random: Random, state: State) -> Sequence[Step]:
    return [
        f"TRUNCATE {state.table(random)}",
        *(insert(random, state) if random.random() < 0.5 else []),
    ]


def recreate(random: Random, state: State) -> Sequence[Step]:
    table = state.table(random)
    options = random.choice(
        ("", "WITH (fillfactor = 20)", "WITH (fillfactor = 70)", "WITH (autovacuum_enabled = off)",
         "WITH (toast_tuple_target = 200)")
    )  # fmt: skip
    kind = random.choice(("TABLE", "TABLE", "UNLOGGED TABLE"))
    return [f"DROP TABLE IF EXISTS {table}", create_table(table, kind, options)]


def copy(random: Random, state: State) -> Sequence[Step]:
    table, count = state.table(random), random.choice((10, 300, 3000))
    lines = "".join(f"{i}\t{i % 9}\t{'c' * (i % 60)}\n" for i in range(count))
    return [Copy(f"COPY {table}(id, k, v) FROM STDIN", lines)]


def copy_freeze(random: Random, state: State) -> Sequence[Step]:
    """All-visible and frozen from the start; then some row of it changes."""
    table, count = state.table(random), random.choice((10, 500, 4000))
    lines = "".join(f"{i}\t{i % 9}\t{'f' * (i % 90)}\n" for i in range(count))
    return [
        "BEGIN",
        f"TRUNCATE {table}",
        Copy(f"COPY {table}(id, k, v) FROM STDIN WITH (FREEZE)", lines),
        random.choice(("COMMIT", "COMMIT", "COMMIT", "ROLLBACK")),
        f"UPDATE {table} SET w = 1 WHERE id = {random.randrange(count)}",
        f"DELETE FROM {table} WHERE id = {random.randrange(count)}",
    ]


def toast(random: Random, state: State) -> Sequence[Step]:
    table, parts = state.table(random), random.choice((20, 90, 300, 2000))
    value = (
        f"(SELECT string_agg(md5((g * {random.randrange(1, 99)})::text), '') "
        f"FROM generate_series(1, {parts}) g)"
    )
    storage = random.choice(("EXTERNAL", "EXTENDED", "MAIN"))
    return [
        f"ALTER TABLE {table} ALTER COLUMN big SET STORAGE {storage}",
        f"INSERT INTO {table}(id, k, big) SELECT i, i, {value} FROM generate_series(1, 5) i",
        f"UPDATE {table} SET big = big || 'x' WHERE id % 3 = 0 AND big IS NOT NULL",
        f"DELETE FROM {table} WHERE big IS NOT NULL AND id % 2 = 0",
    ]


def lock_rows(random: Random, state: State) -> Sequence[Step]:
    table = state.table(random)
    strength = random.choice(("UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"))
    return [f"SELECT id FROM {table} WHERE {some_ids(random)} LIMIT 50 FOR {strength}"]


def analyze(random: Random, state: State) -> Sequence[Step]:
    return [f"ANALYZE {state.table(random)}"]


ACTIONS = [
    Action(insert, 12),
    Action(insert_singly, 6),
    Action(insert_on_conflict, 4),
    Action(update, 10),
    Action(update_repeatedly, 5),
    Action(delete, 6),
    Action(delete_most_and_vacuum, 6, in_block=False),
    Action(vacuum, 8, in_block=False),
    Action(truncate, 3),
    Action(recreate, 3),
    Action(copy, 4),
    Action(copy_freeze, 3, in_block=False),
    Action(toast, 4),
    Action(lock_rows, 4),
    Action(analyze, 2),
]
