"""One client that asks for pages one at a time, in a process of its own: latencies as JSON.

    python -m tools.bench.page_latency HOST:PORT SECONDS SPC DB REL BLOCKS LSN

Blocks are taken at random; a page is asked for at LSN, hexadecimal as PostgreSQL writes it.
"""

import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import quantiles

from formats import lsn as lsn_text
from server.client import PageClient


@dataclass(frozen=True)
class Latency:
    """Of GetPage, in microseconds."""

    pages: int
    p50: float
    p99: float


def start(
    address: str, seconds: float, relation: tuple[int, int, int], blocks: int, lsn: int
) -> "subprocess.Popen[str]":
    """The client, which starts asking at once."""
    words = (address, seconds, *relation, blocks, lsn_text.show(lsn))
    command = [sys.executable, "-m", __name__, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(client: "subprocess.Popen[str]") -> Latency:
    """What it has measured."""
    text, _ = client.communicate()
    if client.returncode != 0:
        raise subprocess.CalledProcessError(client.returncode, "page_latency")
    return Latency(**json.loads(text))


def _measure(
    address: str, seconds: float, relation: tuple[int, int, int], blocks: int, lsn: int
) -> Latency:
    numbers, found, clock = random.Random(), [], time.perf_counter
    with PageClient(address) as client:
        client.get_page(*relation, 0, 0, lsn)
        end = clock() + seconds
        while (begin := clock()) < end:
            client.get_page(*relation, 0, numbers.randrange(blocks), lsn)
            found.append(1e6 * (clock() - begin))
    cuts = quantiles(found, n=100)
    return Latency(len(found), cuts[49], cuts[98])


def main() -> None:
    address, seconds, spc, db, rel, blocks, lsn = sys.argv[1:]
    relation = int(spc), int(db), int(rel)
    latency = _measure(address, float(seconds), relation, int(blocks), lsn_text.parse(lsn))
    print(json.dumps(latency.__dict__))


if __name__ == "__main__":
    main()
