"""`getpage-hit-...`: pages out of the page cache, beside a C server that has nothing else to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tools.bench.attached import (
    LATEST_LSN,
    address_of,
    attached,
    catch_up,
    frame,
    page_query,
    primary_of,
    relation_of,
    write_frames,
)
from tools.bench.bench import Bench
from tools.bench.c_programs import BARE, Load
from tools.bench.row import Bar, Row

PIPELINED = "getpage-hit-pipelined"
EIGHT_CONNECTIONS = "getpage-hit-8-connections"
PAGES = 2000
DEPTH = 32
ROUNDS = 7
SECONDS = 1.5
PEER = "C server, batched replies"
BARE_SHARE_MIN = 0.8


def run_pipelined(bench: Bench) -> list[Row]:
    return _run(bench, PIPELINED, Bar(0.75), connections=1, depth=DEPTH)


def run_eight_connections(bench: Bench) -> list[Row]:
    return _run(bench, EIGHT_CONNECTIONS, Bar(0.6), connections=8, depth=1)


@contextmanager
def cached_pages(bench: Bench) -> Iterator[tuple[tuple[int, int], str, Path]]:
    """A page server with pages in its cache: process id and port, query, requests."""
    with primary_of(bench, 2) as primary, attached(bench, primary) as server:
        lsn = catch_up(primary, server)
        relation = relation_of(primary, "pgbench_accounts")
        frames = [frame(relation, block, LATEST_LSN, lsn) for block in range(PAGES)]
        path = write_frames(bench, frames)
        query = page_query(server)
        bench.programs.check(address_of(server)[1], path, query)
        yield address_of(server), query, path


def _run(bench: Bench, name: str, bar: Bar, *, connections: int, depth: int) -> list[Row]:
    programs, seconds = bench.programs, bench.seconds(SECONDS)
    shares: list[float] = []
    with (
        bench.step(name),
        cached_pages(bench) as (server, query, frames),
        programs.peer("pages", PAGES) as peer,
        programs.peer("bare", PAGES) as bare,
    ):

        def load(target: tuple[int, int], words: str) -> Load:
            return programs.load(
                target, frames, words, seconds=seconds, connections=connections, depth=depth
            )

        def load_peer() -> Load:
            loop = load(bare, BARE)
            theirs = load(peer, "pages")
            shares.append(theirs.pages_per_second / loop.pages_per_second)
            return theirs

        pairs = bench.in_turns(ROUNDS, lambda: load(server, query), load_peer)
    notes = [describe_cpu(pairs), describe_bare(median(shares))]
    rates = [(ours.pages_per_second, theirs.pages_per_second) for ours, theirs in pairs]
    return [Row.of_pairs(name, "", "pages/s", PEER, rates, bar, notes)]


def describe_cpu(pairs: list[tuple[Load, Load]]) -> str:
    ours = median(load.server_cpu_us for load, _ in pairs)
    theirs = median(load.server_cpu_us for _, load in pairs)
    client = max(load.client_cores for pair in pairs for load in pair)
    return (
        f"server CPU a page: {ours:.2f} µs, C server {theirs:.2f} µs ({theirs / ours:.2f}); "
        f"client: at most {client:.2f} of a core"
    )


def describe_bare(share: float) -> str:
    enough = "" if share >= BARE_SHARE_MIN else f", LESS than the {BARE_SHARE_MIN} it needs"
    return f"the C server reaches {share:.2f} of a bare send and receive loop{enough}"
