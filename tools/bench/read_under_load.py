"""`read-under-load`: GetPage while the server flushes, compacts and collects, beside a quiet one.

One client in a process of its own asks for one page at a time, of blocks at random, at the LSN
before the load: what it asks for lies in layers and must be looked up below all that came since.
The same pgbench writes to the primary at the same rate for both. The quiet server ingests what it
writes and does nothing else; the other one has so little memory that it flushes all the time.
"""

from tools.bench.attached import attached, catch_up, insert_lsn, primary_of, relation_of
from tools.bench.bench import MIB, Bench
from tools.bench.page_latency import Latency, finish, start
from tools.bench.row import Bar, Row
from tools.page_server import PageServer
from tools.postgres import Server

NAME = "read-under-load"
ROUNDS = 3
SECONDS = 6.0
RATE = 500  # transactions a second: the clients, the primary and both cores must not be the limit
BAR = Bar(2.0, is_most=True)
QUIET = ("--set", "flush_seconds_max=3600", "--set", f"memory_bytes_max={1024 * MIB}")
BUSY = ("--set", "flush_seconds_max=0.5", "--set", f"memory_bytes_max={64 * MIB}")
SETTINGS = {"synchronous_commit": "off"}


def run(bench: Bench) -> list[Row]:
    counts: list[int] = []
    with bench.step(NAME), primary_of(bench, bench.scale, SETTINGS) as primary:
        relation = relation_of(primary, "pgbench_accounts")
        ((blocks,),) = primary.sql(
            "select pg_relation_size('pgbench_accounts') / current_setting('block_size')::int"
        )
        with attached(bench, primary, *QUIET) as quiet, attached(bench, primary, *BUSY) as busy:
            lsn = insert_lsn(primary)
            for server in (quiet, busy):
                catch_up(primary, server)

            def measure(server: PageServer) -> Latency:
                return _measure(bench, primary, server, relation, int(blocks), lsn)

            pairs = bench.in_turns(ROUNDS, lambda: measure(busy), lambda: measure(quiet))
            counts += [_layer_count(server) for server in (busy, quiet)]
    note = (
        f"medians {pairs[-1][0].p50:.0f} and {pairs[-1][1].p50:.0f} µs in the last round; "
        f"layer files at the end: {counts[0]} and {counts[1]}"
    )
    p99 = [(ours.p99, theirs.p99) for ours, theirs in pairs]
    return [Row.of_pairs(NAME, "p99", "µs", "the same, quiet", p99, BAR, [note])]


def _measure(
    bench: Bench,
    primary: Server,
    server: PageServer,
    relation: tuple[int, int, int],
    blocks: int,
    lsn: int,
) -> Latency:
    seconds = bench.seconds(SECONDS)
    load = primary.start_pgbench("-n", "-c", "2", "-R", str(RATE), "-T", str(round(seconds)))
    try:
        latency = finish(start(server.address, seconds, relation, blocks, lsn))
        load.communicate()
    finally:
        load.kill()
    return latency


def _layer_count(server: PageServer) -> int:
    with server.client() as client:
        return int(str(client.status()["layer_count"]))
