"""`make bench`: run the benchmarks, print a table, write build/bench.json.

    python -m tools.bench [--only NAME]... [--quick] [--out FILE]

`--quick` runs everything once and briefly, to see that it works: its figures mean nothing. The exit
status says whether the benchmarks ran, not whether they reached their bars: the table does that.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from rich.console import Console

from tools.bench import (
    base_backup,
    cold_getpage,
    compaction_merge,
    freshness,
    getpage_hit,
    getpage_replay,
    growth,
    ingest_durable,
    lsm,
    memory,
    primary_cost,
    read_under_load,
    redo_27,
    redo_lsn_order,
    redo_table,
    relations,
    restart,
    s3,
    s3_cold,
    s3_ingest,
    s3_lazy,
    space,
    wal_decode,
)
from tools.bench.bench import Bench
from tools.bench.row import Row, show, write_json

OUT = Path(__file__).parent.parent.parent / "build" / "bench.json"

BENCHMARKS: dict[str, Callable[[Bench], list[Row]]] = {
    wal_decode.NAME: wal_decode.run,
    ingest_durable.NAME: ingest_durable.run,
    redo_lsn_order.NAME: redo_lsn_order.run,
    redo_27.NAME: redo_27.run,
    redo_table.NAME: redo_table.run,
    getpage_hit.PIPELINED: getpage_hit.run_pipelined,
    getpage_hit.EIGHT_CONNECTIONS: getpage_hit.run_eight_connections,
    getpage_replay.REPLAY: getpage_replay.run_replay,
    getpage_replay.HOT: getpage_replay.run_hot,
    freshness.NAME: freshness.run,
    primary_cost.NAME: primary_cost.run,
    base_backup.NAME: base_backup.run,
    compaction_merge.NAME: compaction_merge.run,
    memory.NAME: memory.run,
    lsm.INGEST: lsm.run_ingest,
    lsm.WRITE: lsm.run_write_amplification,
    lsm.SPACE: lsm.run_space,
    lsm.READ: lsm.run_read,
    space.NAME: space.run,
    cold_getpage.NAME: cold_getpage.run,
    read_under_load.NAME: read_under_load.run,
    s3.UPLOAD: s3.run_upload,
    s3.RESTORE: s3.run_restore,
    s3_cold.NAME: s3_cold.run,
}
LONG: dict[str, Callable[[Bench], list[Row]]] = {
    growth.NAME: growth.run,
    relations.NAME: relations.run,
    restart.NAME: restart.run,
    s3_ingest.NAME: s3_ingest.run,
    s3_lazy.NAME: s3_lazy.run,
}
"""Minutes each: only when they are asked for by name."""


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="The benchmarks.")
    parser.add_argument("--only", action="append", choices=[*BENCHMARKS, *LONG], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="see that they work")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    began = time.monotonic()
    rows: list[Row] = []
    with ExitStack() as resources:
        bench = Bench(console, resources, quick=options.quick)
        for name in options.only or BENCHMARKS:
            rows += (BENCHMARKS | LONG)[name](bench)
            write_json(rows, options.out)
    show(rows, console)
    console.print(f"{time.monotonic() - began:.0f} s in all; {options.out}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
