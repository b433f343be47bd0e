"""Multixacts by the thousand, and the freezing that lets their segments go.

Prepared transactions keep their row locks: one session alone can so make a row have many sharers,
each new one with a multixact that lists all before it.
"""

from collections.abc import Sequence
from random import Random

from tools.sql_fuzzer.actions import Action, InDatabase, Step
from tools.sql_fuzzer.state import SHARED_ROWS, State

PREPARED_FOR_SLOTS = 3


def storm(random: Random, state: State) -> Sequence[Step]:
    sharers = min(state.prepared_max - PREPARED_FOR_SLOTS, random.choice((3, 6, 9)))
    if sharers < 2:
        return []
    names = [f"m{state.session}_{i}" for i in range(sharers)]
    width = random.choice((20, 60, 100))
    steps: list[Step] = [f"ROLLBACK PREPARED '{name}'" for name in names]
    first = random.randrange(1, SHARED_ROWS - width)
    for name in names:
        strength = random.choice(("KEY SHARE", "KEY SHARE", "KEY SHARE", "SHARE"))
        steps += [
            "BEGIN",
            f"SELECT count(*) FROM (SELECT 1 FROM crowd "
            f"WHERE id BETWEEN {first} AND {first + width} FOR {strength}) l",
            f"PREPARE TRANSACTION '{name}'",
        ]
    steps.append(f"UPDATE crowd SET n = n + 1 WHERE id BETWEEN {first} AND {first + width // 2}")
    return steps + [f"{random.choice(('COMMIT', 'ROLLBACK'))} PREPARED '{name}'" for name in names]


def lock_in_subtransactions(random: Random, state: State) -> Sequence[Step]:
    """Multixacts of a transaction and its own subtransactions, with rising strength."""
    first = random.randrange(1, SHARED_ROWS)
    rows = f"id BETWEEN {first} AND {first + random.choice((5, 40))}"
    steps: list[Step] = ["BEGIN"]
    for name, strength in zip(
        "abcd", ("KEY SHARE", "SHARE", "NO KEY UPDATE", "UPDATE"), strict=True
    ):
        steps += [
            f"SELECT count(*) FROM (SELECT 1 FROM shared WHERE {rows} FOR {strength}) l",
            f"SAVEPOINT {name}",
        ]
        if random.random() < 0.3:
            break
    return [*steps, random.choice(("COMMIT", "ROLLBACK"))]


def freeze_shared(random: Random, state: State) -> Sequence[Step]:
    return [f"VACUUM ({random.choice(('FREEZE', 'FREEZE, DISABLE_PAGE_SKIPPING'))}) shared"]


def freeze_everything(random: Random, state: State) -> Sequence[Step]:
    """All databases: only then do the oldest segments of the SLRUs go."""
    everywhere = ("postgres", "template1", "template0", *state.databases)
    return [InDatabase(name, ("VACUUM (FREEZE)",)) for name in everywhere]


ACTIONS = [
    Action(storm, 7, in_block=False),
    Action(lock_in_subtransactions, 5, in_block=False),
    Action(freeze_shared, 2, in_block=False),
    Action(freeze_everything, 1, in_block=False),
]
