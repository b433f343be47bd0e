"""The process in which one target's inputs run, so that a crash or a hang is not the parent's.

    python -m tools.fuzz.worker TARGET '{"seed": 1, "first": 0, "inputs": 1000, "seconds": 9,
                                         "place": "FILE"}'
    python -m tools.fuzz.worker TARGET INPUT_FILE

The file `place` is shared memory: its first u64 is always the index of the input that runs. Each
second or so, and at the end, a line of JSON on standard output says what was done since the start.
Seconds are the process's own, not the clock's: on a busy machine an hour must not count for less.
An error that no target allows is a traceback and exit code 1.
"""

import json
import mmap
import sys
import time
from pathlib import Path
from typing import Any

from tools.fuzz.targets import build

BATCH_INPUTS = 4096
REPORT_SECONDS = 1.0
FAULT = "fault: "  # how the name of an outcome begins that is a refusal, not an exception


def report(target: Any, names: dict[int, str], inputs: int, seconds: float) -> None:
    outcomes = {
        names.get(i, f"outcome {i}"): count for i, count in enumerate(target.outcomes) if count
    }
    faults = {text: n for text, n in outcomes.items() if text.startswith(FAULT)}
    accepted = {text: n for text, n in outcomes.items() if text not in faults}
    errors = {**target.errors, **faults}
    line = {"inputs": inputs, "seconds": seconds, "accepted": accepted, "errors": errors}
    print(json.dumps(line), flush=True)


def run_inputs(name: str, order: dict[str, Any]) -> None:
    """Inputs first .. first + inputs of the seed, or as many as the seconds allow."""
    with open(order["place"], "r+b") as file:
        shared = mmap.mmap(file.fileno(), mmap.PAGESIZE)
    place = memoryview(shared).cast("Q")
    target, names = build(name, place)
    first, inputs = order["first"], order["inputs"]
    begin = reported = time.process_time()
    done = 0
    # Less at a time where inputs are slow: the report and the limit of time are kept.
    size = 16
    while done < inputs and time.process_time() - begin < order["seconds"]:
        count = min(size, inputs - done)
        start = time.process_time()
        target.run(order["seed"], first + done, count)
        done += count
        now = time.process_time()
        size = min(4 * size, BATCH_INPUTS) if now - start < REPORT_SECONDS / 8 else size
        if now - reported > REPORT_SECONDS:
            reported = now
            report(target, names, done, now - begin)
    report(target, names, done, time.process_time() - begin)


def main(arguments: list[str]) -> int:
    name, order = arguments
    if order.startswith("{"):
        run_inputs(name, json.loads(order))
        return 0
    target, names = build(name, memoryview(bytearray(8)).cast("Q"))
    target.run_input(Path(order).read_bytes())
    report(target, names, 1, 0.0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
