"""Indexes of every access method, built, rebuilt, dropped, cleaned.

Each table has five slots for indexes, so that rows that change change all kinds of indexes.
"""

from collections.abc import Sequence
from random import Random

from tools.sql_fuzzer.actions import Action, Step
from tools.sql_fuzzer.state import COLUMNS, State

BTREE, GIN, SPACE, BRIN, HASH = range(5)
KINDS = {
    BTREE: (
        "(id)", "(k)", "(v)", "(k, v)", "(id) INCLUDE (v)", "(v text_pattern_ops)",
        "(k) WITH (deduplicate_items = off)", "(id) WITH (fillfactor = 50)", "((k % 3))",
        "(id) WHERE k % 2 = 0", "(v DESC, id)",
    ),
    GIN: (
        "USING gin (tags)", "USING gin (tags) WITH (fastupdate = off)",
        "USING gin (tags) WITH (gin_pending_list_limit = 64)",
        "USING gin (to_tsvector('simple', v))",
    ),
    SPACE: (
        "USING gist (p)", "USING gist (r)", "USING gist (p) INCLUDE (id)",
        "USING gist (p) WITH (buffering = on)", "USING spgist (p)",
        "USING spgist (p kd_point_ops)", "USING spgist (v)", "USING spgist (r)",
    ),
    BRIN: (
        "USING brin (id) WITH (pages_per_range = 1)", "USING brin (id) WITH (pages_per_range = 2)",
        "USING brin (id int4_minmax_multi_ops) WITH (pages_per_range = 1)",
        "USING brin (v) WITH (pages_per_range = 1, autosummarize = on)",
        "USING brin (r range_inclusion_ops) WITH (pages_per_range = 3)",
    ),
    HASH: (
        "USING hash (k)", "USING hash (id)", "USING hash (v)", "USING bloom (id, k)",
        "USING bloom (k, w) WITH (length = 32)",
    ),
}  # fmt: skip


def _index(table: str, slot: int) -> str:
    return f"{table}_i{slot}"


def build(random: Random, state: State) -> Sequence[Step]:
    table, slot = state.table(random), random.choice(list(KINDS))
    index = _index(table, slot)
    return [
        f"DROP INDEX IF EXISTS {index}",
        f"CREATE INDEX IF NOT EXISTS {index} ON {table} {random.choice(KINDS[slot])}",
    ]


def build_concurrently(random: Random, state: State) -> Sequence[Step]:
    table, slot = state.table(random), random.choice(list(KINDS))
    index = _index(table, slot)
    return [
        f"DROP INDEX {random.choice(('', 'CONCURRENTLY '))}IF EXISTS {index}",
        f"CREATE INDEX CONCURRENTLY {index} ON {table} {random.choice(KINDS[slot])}",
    ]


def build_all(random: Random, state: State) -> Sequence[Step]:
    table = state.table(random)
    return [
        f"CREATE INDEX IF NOT EXISTS {_index(table, slot)} ON {table} {random.choice(kinds)}"
        for slot, kinds in KINDS.items()
    ]


def drop(random: Random, state: State) -> Sequence[Step]:
    return [f"DROP INDEX IF EXISTS {_index(state.table(random), random.choice(list(KINDS)))}"]


def reindex(random: Random, state: State) -> Sequence[Step]:
    table = state.table(random)
    what = random.choice((f"TABLE {table}", f"INDEX {_index(table, random.choice(list(KINDS)))}"))
    return [f"REINDEX {what}"]


def reindex_concurrently(random: Random, state: State) -> Sequence[Step]:
    table = state.table(random)
    what, name = random.choice((("TABLE", table), ("INDEX", _index(table, BTREE))))
    return [f"REINDEX {what} CONCURRENTLY {name}"]


def clean_pending_list(random: Random, state: State) -> Sequence[Step]:
    return [f"SELECT gin_clean_pending_list('{_index(state.table(random), GIN)}')"]


def gin_growth(random: Random, state: State) -> Sequence[Step]:
    """Few keys with many rows: posting lists, then trees of them; and their pages deleted."""
    table = f"g{state.session}"
    first, count = random.randrange(100_000), random.choice((200, 2000, 5000))
    grow = (
        f"INSERT INTO {table} SELECT g, ARRAY[1, g % 3, g] "
        f"FROM generate_series({first}, {first + count}) g"
    )
    shrink = f"DELETE FROM {table} WHERE id % {random.randrange(1, 5)} = 0"
    return random.choice(
        ([grow], [grow, f"VACUUM {table}"], [shrink, f"VACUUM {table}"], [shrink, grow],
         [f"ALTER INDEX {table}_i SET (fastupdate = {random.choice(('on', 'off'))})", grow])
    )  # fmt: skip


def brin_ranges(random: Random, state: State) -> Sequence[Step]:
    index = _index(state.table(random), BRIN)
    block = random.randrange(8)
    return [
        random.choice(
            (
                f"SELECT brin_summarize_new_values('{index}')",
                f"SELECT brin_summarize_range('{index}', {block})",
                f"SELECT brin_desummarize_range('{index}', {block})",
            )
        )
    ]


def brin_growth(random: Random, state: State) -> Sequence[Step]:
    """Summaries that get longer, move to other pages, and are evacuated."""
    table, length = f"b{state.session}", random.choice((10, 300, 1000))
    first = random.randrange(100_000)
    return [
        f"INSERT INTO {table} SELECT g, repeat(md5(g::text), {length} / 32 + 1) "
        f"FROM generate_series({first}, {first + 30}) g",
        f"SELECT brin_summarize_new_values('{table}_i')",
        f"SELECT brin_desummarize_range('{table}_i', {random.randrange(30)})",
        f"UPDATE {table} SET v = repeat('{random.choice('azm')}', {length}) "
        f"WHERE id % {random.randrange(2, 7)} = 0",
        *([f"TRUNCATE {table}"] if random.random() < 0.1 else []),
    ]


def deep_btree(random: Random, state: State) -> Sequence[Step]:
    """Wide keys: few to a page, so that splits reach the upper levels; deletion of whole pages."""
    table, count = f"w{state.session}", random.choice((50, 400, 1200))
    first = random.randrange(1_000_000)
    grow = (
        f"INSERT INTO {table} SELECT lpad((g::bigint * {random.choice((1, 7919))})::text, "
        f"{random.choice((500, 1500, 2000))}, 'k') FROM generate_series({first}, {first + count}) g"
    )
    shrink = f"DELETE FROM {table} WHERE ctid < '({random.randrange(1, 90)},1)'"
    return [grow] if random.random() < 0.6 else [shrink, f"VACUUM {table}", f"VACUUM {table}"]


def duplicates(random: Random, state: State) -> Sequence[Step]:
    """Deduplication, posting list splits, deletion from posting lists (bottom-up too)."""
    table, value = f"e{state.session}", random.randrange(5)
    return [
        f"INSERT INTO {table} SELECT g % 3, 'dup' || ({value} + g % 2), g "
        f"FROM generate_series(1, {random.choice((30, 400, 2000))}) g",
        f"UPDATE {table} SET n = n + 1 WHERE a = {random.randrange(3)}",
        f"DELETE FROM {table} WHERE n % {random.randrange(2, 9)} = 0",
        *([f"VACUUM {table}"] if random.random() < 0.4 else []),
        *([f"TRUNCATE {table}"] if random.random() < 0.1 else []),
    ]


def hash_growth(random: Random, state: State) -> Sequence[Step]:
    """Buckets that split, overflow pages that come and are squeezed out."""
    table, first = f"x{state.session}", random.randrange(100_000)
    grow = (
        f"INSERT INTO {table} SELECT g % {random.choice((3, 100_000))} "
        f"FROM generate_series({first}, {first + random.choice((50, 800, 3000))}) g"
    )
    shrink = f"DELETE FROM {table} WHERE a % {random.randrange(1, 4)} = 0"
    return [grow] if random.random() < 0.6 else [shrink, f"VACUUM {table}", grow]


def space_growth(random: Random, state: State) -> Sequence[Step]:
    """GiST and SP-GiST trees, their pages deleted, redirections vacuumed."""
    table, first = f"y{state.session}", random.randrange(100_000)
    grow = (
        f"INSERT INTO {table} SELECT point((g * 7919) % 1000, g % {random.choice((10, 977))}), "
        f"repeat(chr(97 + g % 26), g % 30) || md5(g::text), box(point(g % 50, g % 60), "
        f"point(g % 70, g % 80)) "
        f"FROM generate_series({first}, {first + random.choice((20, 300, 1500))}) g"
    )
    shrink = f"DELETE FROM {table} WHERE p[0] > {random.randrange(1000)}"
    return [grow] if random.random() < 0.6 else [shrink, f"VACUUM {table}", f"VACUUM {table}", grow]


def setup(session: int) -> list[str]:
    """The tables that grow one kind of index each."""
    return [
        f"CREATE TABLE IF NOT EXISTS g{session}(id int, tags int[])",
        f"CREATE INDEX IF NOT EXISTS g{session}_i ON g{session} USING gin (tags)",
        f"CREATE TABLE IF NOT EXISTS b{session}(id int, v text)",
        f"CREATE INDEX IF NOT EXISTS b{session}_i ON b{session} USING brin (v) "
        "WITH (pages_per_range = 1)",
        f"CREATE TABLE IF NOT EXISTS w{session}(v text)",
        f"ALTER TABLE w{session} ALTER COLUMN v SET STORAGE PLAIN",
        f"CREATE INDEX IF NOT EXISTS w{session}_i ON w{session}(v)",
        f"CREATE TABLE IF NOT EXISTS e{session}(a int, b text, n int)",
        f"CREATE INDEX IF NOT EXISTS e{session}_a ON e{session}(a)",
        f"CREATE INDEX IF NOT EXISTS e{session}_b ON e{session}(b)",
        f"CREATE INDEX IF NOT EXISTS e{session}_n ON e{session}(n)",
        f"CREATE TABLE IF NOT EXISTS x{session}(a int)",
        f"CREATE INDEX IF NOT EXISTS x{session}_i ON x{session} USING hash (a)",
        f"CREATE TABLE IF NOT EXISTS y{session}(p point, v text, b box)",
        f"CREATE INDEX IF NOT EXISTS y{session}_g ON y{session} USING gist (p)",
        f"CREATE INDEX IF NOT EXISTS y{session}_b ON y{session} USING gist (b)",
        f"CREATE INDEX IF NOT EXISTS y{session}_s ON y{session} USING spgist (p)",
        f"CREATE INDEX IF NOT EXISTS y{session}_t ON y{session} USING spgist (v)",
    ]


def columns_in_order(random: Random, state: State) -> Sequence[Step]:
    """A table copied onto itself: every index takes as many rows again."""
    table = state.table(random)
    return [f"INSERT INTO {table}({COLUMNS}) SELECT {COLUMNS} FROM {table} LIMIT 500"]


ACTIONS = [
    Action(build, 8),
    Action(build_concurrently, 3, in_block=False),
    Action(build_all, 9),
    Action(drop, 2),
    Action(reindex, 3),
    Action(reindex_concurrently, 2, in_block=False),
    Action(clean_pending_list, 3),
    Action(gin_growth, 6, in_block=False),
    Action(brin_ranges, 4),
    Action(brin_growth, 5),
    Action(deep_btree, 6, in_block=False),
    Action(duplicates, 6, in_block=False),
    Action(hash_growth, 6, in_block=False),
    Action(space_growth, 6, in_block=False),
    Action(columns_in_order, 4),
]
