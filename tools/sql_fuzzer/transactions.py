"""Transactions: of many actions, with savepoints, of many subtransactions, prepared ones."""

from collections.abc import Sequence
from random import Random

from tools.sql_fuzzer.actions import Action, Step
from tools.sql_fuzzer.state import SHARED_ROWS, State


def block(random: Random, state: State, actions: Sequence[Action]) -> Sequence[Step]:
    """A transaction of several actions, parts of which are rolled back; or all of it is."""
    steps: list[Step] = ["BEGIN"]
    depth = 0
    for action in random.choices(actions, [a.weight for a in actions], k=random.randrange(1, 6)):
        if random.random() < 0.5:
            depth += 1
            steps.append(f"SAVEPOINT s{depth}")
        steps += action.make(random, state)
        if depth and random.random() < 0.6:
            steps.append(f"{random.choice(('RELEASE', 'ROLLBACK TO', 'ROLLBACK TO'))} s{depth}")
            depth -= steps[-1] == f"RELEASE s{depth}"
    return [*steps, random.choice(("COMMIT", "COMMIT", "COMMIT", "ROLLBACK"))]


def subtransactions(random: Random, state: State) -> Sequence[Step]:
    """More than fit into a backend's cache (64), some of them aborted."""
    count, table = random.choice((10, 70, 150, 400)), state.table(random)
    return [
        f"""DO $$ BEGIN FOR i IN 1..{count} LOOP BEGIN
        INSERT INTO {table}(id, k) VALUES (i, {random.randrange(100)});
        IF i % {random.randrange(3, 20)} = 0 THEN RAISE EXCEPTION 'away with it'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$"""
    ]


def savepoints(random: Random, state: State) -> Sequence[Step]:
    """Nested subtransactions, open ones among them when the transaction ends."""
    table, count = state.table(random), random.choice((5, 80))
    steps: list[Step] = ["BEGIN"]
    for i in range(count):
        steps += [f"SAVEPOINT s{i}", f"INSERT INTO {table}(id) VALUES ({i})"]
    return [
        *steps,
        f"ROLLBACK TO s{random.randrange(count)}",
        random.choice(("COMMIT", "ROLLBACK")),
    ]


def assign_many(random: Random, state: State) -> Sequence[Step]:
    """Many small transactions: status pages, and commit timestamps, fill."""
    count = random.choice((20, 100, 300))
    return [
        f"DO $$ BEGIN FOR i IN 1..{count} LOOP PERFORM txid_current(); COMMIT; END LOOP; END $$"
    ]


def _finish(state: State, slot: int, word: str) -> str:
    return f"{word} PREPARED 'p{state.session}_{slot}'"


def prepare(random: Random, state: State) -> Sequence[Step]:
    """A prepared transaction in a slot; what was in it before ends."""
    if not state.prepared_max:
        return []
    slot = random.randrange(min(3, state.prepared_max))
    table, dropped = f"p{state.session}_{slot}", f"o{state.session}_{slot}"
    body = random.choice(
        (
            [f"INSERT INTO {table} SELECT g FROM generate_series(1, 300) g"],
            [f"INSERT INTO {table} VALUES (1)", "SAVEPOINT s", f"TRUNCATE {dropped}", "SAVEPOINT t",
             f"DROP TABLE IF EXISTS {dropped}", f"CREATE TABLE {dropped}(a int PRIMARY KEY)"],
            [f"DROP TABLE IF EXISTS {dropped}"],
            [f"SELECT count(*) FROM (SELECT 1 FROM shared WHERE id % 9 = {slot} FOR SHARE) l",
             f"CREATE TABLE {dropped}_new(a int)", f"INSERT INTO {dropped}_new VALUES (1)"],
            [f"DO $$ BEGIN FOR i IN 1..90 LOOP BEGIN INSERT INTO {table} VALUES (i); "
             "EXCEPTION WHEN unique_violation THEN NULL; END; END LOOP; END $$"],
        )
    )  # fmt: skip
    return [
        _finish(state, slot, random.choice(("COMMIT", "ROLLBACK"))),
        f"CREATE TABLE IF NOT EXISTS {table}(a int)",
        f"CREATE {random.choice(('', 'UNLOGGED '))}TABLE IF NOT EXISTS {dropped}(a int)",
        f"DROP TABLE IF EXISTS {dropped}_new",
        "BEGIN",
        *body,
        f"PREPARE TRANSACTION 'p{state.session}_{slot}'",
        *(["CHECKPOINT"] if random.random() < 0.3 else []),
    ]


def finish_prepared(random: Random, state: State) -> Sequence[Step]:
    word = random.choice(("COMMIT", "ROLLBACK"))
    return [_finish(state, random.randrange(min(3, state.prepared_max)), word)] * bool(
        state.prepared_max
    )


def abort_after_error(random: Random, state: State) -> Sequence[Step]:
    table = state.table(random)
    return [
        "BEGIN",
        f"UPDATE {table} SET w = 9 WHERE id % 17 = 0",
        "SAVEPOINT s",
        "SELECT 1 / 0",
        "ROLLBACK TO s",
        f"DELETE FROM {table} WHERE id % 19 = 0",
        *(["SELECT 1 / 0"] if random.random() < 0.5 else []),
        "COMMIT",
    ]


def update_shared(random: Random, state: State) -> Sequence[Step]:
    """Rows that others lock: waits, deadlocks, updaters within multixacts."""
    first = random.randrange(1, SHARED_ROWS)
    rows = f"id BETWEEN {first} AND {first + random.choice((0, 3, 20))}"
    lock = random.choice(("FOR SHARE", "FOR KEY SHARE", "FOR NO KEY UPDATE", "FOR UPDATE"))
    change = random.choice(("n = n + 1", "v = md5(v)", "n = n"))
    return [
        "BEGIN",
        f"SELECT count(*) FROM (SELECT 1 FROM shared WHERE {rows} {lock}) l",
        "SAVEPOINT s",
        f"UPDATE shared SET {change} WHERE {rows}",
        random.choice(("ROLLBACK TO s", "RELEASE s", "SAVEPOINT t")),
        f"SELECT count(*) FROM (SELECT 1 FROM shared WHERE {rows} FOR KEY SHARE) l",
        random.choice(("COMMIT", "ROLLBACK")),
    ]


def foreign_keys(random: Random, state: State) -> Sequence[Step]:
    """References lock the rows they refer to."""
    return [
        f"INSERT INTO child SELECT 1 + (g * {random.randrange(1, 99)}) % {SHARED_ROWS} "
        f"FROM generate_series(1, {random.choice((1, 30))}) g",
        f"DELETE FROM child WHERE parent % {random.randrange(2, 9)} = 0",
    ]


ACTIONS = [
    Action(subtransactions, 4),
    Action(savepoints, 3, in_block=False),
    Action(assign_many, 3, in_block=False),
    Action(prepare, 6, in_block=False),
    Action(finish_prepared, 2, in_block=False),
    Action(abort_after_error, 2, in_block=False),
    Action(update_shared, 12, in_block=False),
    Action(foreign_keys, 4),
]
