"""What a session knows: its number, what the server can do, and the names of its objects.

Every session has objects of its own, so that most statements do not wait for one another, and one
table that all share for the sake of row locks. Objects come in fixed pools; an action that drops
one makes it again, so that there is no need to know whether it is there.
"""

from dataclasses import dataclass, field
from random import Random

TABLES = 3
COLUMNS = "id, k, v, w, tags, p, r"
SHARED_ROWS = 300


@dataclass
class State:
    session: int
    major: int
    prepared_max: int = 0
    """Prepared transactions that this session may have open."""
    compressions: tuple[str, ...] = ("off", "on")
    """Values of wal_compression that the server accepts."""
    tag: str = ""
    """Tells apart names that are made once and kept: those of databases and tablespaces."""
    databases: list[str] = field(default_factory=list)
    tablespaces: list[str] = field(default_factory=list)
    made: int = 0

    def table(self, random: Random) -> str:
        return f"t{self.session}_{random.randrange(TABLES)}"

    def next_number(self) -> int:
        self.made += 1
        return self.made


def create_table(name: str, kind: str = "TABLE", options: str = "") -> str:
    """The one shape of table that all actions work on: a column for each access method."""
    return (
        f"CREATE {kind} IF NOT EXISTS {name}(id int, k int, v text, w int, tags int[], p point, "
        f"r int4range, big text) {options}"
    )


def rows(random: Random, count_max: int) -> str:
    """A SELECT of rows for COLUMNS: up to `count_max`, in order or not, narrow or wide."""
    first = random.choice((1, 1, 10_000, random.randrange(1_000_000)))
    last = first + random.randrange(1, count_max)
    distinct = random.choice((1, 5, 50, 100_000))
    width = random.choice((1, 1, 2, 6))
    order = random.choice(("", "", " ORDER BY md5(g::text)", " ORDER BY g DESC"))
    return (
        f"SELECT g, g % {distinct}, repeat(md5((g % {distinct * 7})::text), {width}), 0, "
        f"ARRAY[g % 50, g % 7, g], point(g % 100, g % 93), int4range(g, g + g % 10) "
        f"FROM generate_series({first}, {last}) g{order}"
    )


def some_ids(random: Random) -> str:
    """A condition that holds for some rows."""
    first = random.choice((1, 10_000, random.randrange(20_000)))
    return random.choice(
        (
            f"id % {random.randrange(2, 9)} = 0",
            f"id BETWEEN {first} AND {first + random.randrange(2000)}",
            f"id > {first}",
            f"k = {random.randrange(6)}",
            f"ctid < '({random.randrange(1, 20)},1)'",
        )
    )
