"""`getpage-replay-27` and `getpage-hot`: pages that must be made from their records.

The page cache keeps the newest page of each block that was asked for, and serves no older LSN from
it. So every page is first read at the newest LSN, and then asked for at older ones: each such read
starts from an image and applies every record up to its LSN.
"""

from pathlib import Path
from statistics import median

from tools.bench.attached import (
    LATEST_LSN,
    address_of,
    attached,
    catch_up,
    frame,
    insert_lsn,
    page_query,
    primary_of,
    relation_of,
    write_frames,
)
from tools.bench.bench import Bench
from tools.bench.c_programs import Load
from tools.bench.getpage_hit import DEPTH, PEER, describe_cpu
from tools.bench.replay_pages import PAGES, RECORDS, replay_pages
from tools.bench.row import Bar, Row
from tools.page_server import PageServer

REPLAY = "getpage-replay-27"
HOT = "getpage-hot"
ROUNDS = 5
SECONDS = 1.5
HOT_SECONDS = 30.0
HOT_LSNS = 400
CPU_US_MAX = 15.0
PUBLISHED_US = 139
REPLAY_BAR = Bar(0.12)
HOT_BAR = Bar(1 / 3)


def run_replay(bench: Bench) -> list[Row]:
    """Once with all records in the memtable, once with all of them in layers."""
    rows = []
    with bench.step(REPLAY), replay_pages(bench) as (server, relation, lsns):
        older = [frame(relation, block, lsn, lsn) for block, lsn in sorted(lsns.items())]
        frames = write_frames(bench, older)
        for place in ("memtable", "layers"):
            if place == "layers":
                server.stop()
                server.start()
                server.wait_until_ready(max(lsns.values()))
            read_newest(bench, server, relation, list(lsns))
            pairs = measure(bench, server, frames)
            notes = [f"{RECORDS} records over an image, {len(lsns)} pages", describe_cpu(pairs)]
            rates = [(ours.pages_per_second, peer.pages_per_second) for ours, peer in pairs]
            rows.append(Row.of_pairs(REPLAY, place, "pages/s", PEER, rates, REPLAY_BAR, notes))
            used = median(ours.server_cpu_us for ours, _ in pairs)
            peer = f"what is allowed (Neon's redo child: {PUBLISHED_US} µs, published)"
            rows.append(
                Row(REPLAY, f"{place}, server CPU", used, "µs/page", peer, CPU_US_MAX,
                    used / CPU_US_MAX, Bar(1.0, is_most=True))
            )  # fmt: skip
    return rows


def run_hot(bench: Bench) -> list[Row]:
    """The branch page of pgbench -s 1 at LSNs all over the run, beside pages with 27 records."""
    with bench.step(HOT), replay_pages(bench) as (ordinary, relation, lsns):
        older = [frame(relation, block, lsn, lsn) for block, lsn in sorted(lsns.items())]
        read_newest(bench, ordinary, relation, list(lsns))
        ordinary_frames = write_frames(bench, older)
        with primary_of(bench, 1) as primary, attached(bench, primary) as server:
            begin = insert_lsn(primary)
            primary.pgbench("-n", "-T", str(round(bench.seconds(HOT_SECONDS))), "-c", "2")
            end = catch_up(primary, server)
            branches = relation_of(primary, "pgbench_branches")
            read_newest(bench, server, branches, [0])
            step = (end - begin) // HOT_LSNS
            hot = [
                frame(branches, 0, lsn, lsn)
                for lsn in range(begin + step, begin + step * HOT_LSNS, step)
            ]
            # Neighbours in LSN must not be neighbours in time: each request is a page of its own.
            hot_frames = write_frames(bench, [hot[i * 97 % len(hot)] for i in range(len(hot))])
            pairs = bench.in_turns(
                ROUNDS,
                lambda: load(bench, server, hot_frames),
                lambda: load(bench, ordinary, ordinary_frames),
            )
    rates = [(ours.pages_per_second, peer.pages_per_second) for ours, peer in pairs]
    cpu = median(ours.server_cpu_us for ours, _ in pairs)
    seconds = round(bench.seconds(HOT_SECONDS))
    notes = [f"after {seconds} s of pgbench -s 1; server CPU a page: {cpu:.1f} µs"]
    return [Row.of_pairs(HOT, "", "pages/s", REPLAY, rates, HOT_BAR, notes)]


def load(bench: Bench, server: PageServer, frames: Path) -> Load:
    seconds = bench.seconds(SECONDS)
    return bench.programs.load(
        address_of(server), frames, page_query(server), seconds=seconds, depth=DEPTH
    )


def measure(bench: Bench, server: PageServer, frames: Path) -> list[tuple[Load, Load]]:
    seconds = bench.seconds(SECONDS)
    with bench.programs.peer("pages", PAGES) as peer:

        def load_peer() -> Load:
            return bench.programs.load(peer, frames, "pages", seconds=seconds, depth=DEPTH)

        return bench.in_turns(ROUNDS, lambda: load(bench, server, frames), load_peer)


def read_newest(
    bench: Bench, server: PageServer, relation: tuple[int, int, int], blocks: list[int]
) -> None:
    """Put the newest page of each block into the cache, where it serves no older request."""
    frames = [frame(relation, block, LATEST_LSN, 1) for block in blocks]
    path = write_frames(bench, frames)
    bench.programs.check(address_of(server)[1], path, page_query(server))
