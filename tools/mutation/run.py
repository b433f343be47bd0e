"""Run mutants: put each one in its function's place, ask the witnesses, take it out again.

Processes are forked when everything is loaded and observed; each takes every n-th mutant and sends
one line for each. One that dies of a mutant is replaced: that mutant was noticed.
"""

import importlib
import json
import os
import resource
import select
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from types import FunctionType
from typing import Any

from tools.mutation.mutants import Line, Mutant
from tools.mutation.stages import Witness

MEMORY_BYTES_MAX = 3 << 30


@dataclass
class Result:
    """What became of a mutant."""

    key: str
    place: str
    stage: str  # "case", "test", "crash" or "" if it survived
    witness: str = ""
    found: str = ""
    asked_cases: int = 0
    asked_tests: int = 0


CASES_ASKED_MAX = 80
"""Of those that execute a mutant's line; evenly chosen, so that all kinds of records are asked."""


class Witnesses:
    """Cases and tests by the lines that they execute."""

    def __init__(self, cases: list[Witness], tests: list[Witness]) -> None:
        self._cases = _by_line(cases)
        self._tests = _by_line(tests)

    def of(self, mutant: Mutant) -> tuple[list[Witness], list[Witness]]:
        cases = _found(self._cases, mutant.lines)
        step = max(1, len(cases) // CASES_ASKED_MAX)
        chosen = sorted(cases[::step], key=lambda case: case.seconds)
        tests = _found(self._tests, mutant.lines)
        return chosen, sorted(tests, key=lambda test: test.seconds)


def _by_line(witnesses: list[Witness]) -> dict[Line, list[Witness]]:
    by_line: dict[Line, list[Witness]] = defaultdict(list)
    for witness in witnesses:
        for line in witness.lines:
            by_line[line].append(witness)
    return by_line


def _found(by_line: dict[Line, list[Witness]], lines: frozenset[Line]) -> list[Witness]:
    found = {id(witness): witness for line in lines for witness in by_line.get(line, ())}
    return sorted(found.values(), key=lambda witness: witness.name)


def judge(mutant: Mutant, witnesses: Witnesses) -> Result:
    """Ask all who execute the mutant's lines, until one notices."""
    cases, tests = witnesses.of(mutant)
    result = Result(mutant.key, mutant.place, "")
    take_out = put_in(mutant)
    try:
        for stage, group in (("case", cases), ("test", tests)):
            for witness in group:
                found = witness.finds()
                if stage == "case":
                    result.asked_cases += 1
                else:
                    result.asked_tests += 1
                if found is not None:
                    result.stage, result.witness, result.found = stage, witness.name, found
                    return result
    finally:
        take_out()
    return result


def put_in(mutant: Mutant) -> Callable[[], None]:
    """Let the program run the mutant; call what is returned to end it."""
    module = importlib.import_module(mutant.module)
    if mutant.is_constant:
        was = getattr(module, mutant.function)
        setattr(module, mutant.function, eval(mutant.compiled(), dict(vars(module))))
        return lambda: setattr(module, mutant.function, was)
    found: Any = module
    for name in mutant.function.split("."):
        found = getattr(found, name)
    function: FunctionType = found
    code = function.__code__
    function.__code__ = mutant.compiled()
    return lambda: setattr(function, "__code__", code)


def run_all(mutants: list[Mutant], witnesses: Witnesses, processes: int) -> Iterator[Result]:
    """The results of all mutants, as they come."""
    waiting = {}
    for first in range(processes):
        share = list(range(first, len(mutants), processes))
        if share:
            waiting[_start(mutants, share, witnesses)] = share
    rest: dict[int, bytes] = defaultdict(bytes)
    while waiting:
        ready, _, _ = select.select(list(waiting), [], [])
        for pipe in ready:
            share = waiting[pipe]
            data = os.read(pipe, 1 << 16)
            *lines, rest[pipe] = (rest[pipe] + data).split(b"\n")
            for line in lines:
                share.pop(0)
                yield Result(**json.loads(line))
            if data:
                continue
            os.close(pipe)
            os.wait()
            del waiting[pipe], rest[pipe]
            if share:
                dead = mutants[share.pop(0)]
                yield Result(dead.key, dead.place, "crash", found="the process died")
            if share:
                waiting[_start(mutants, share, witnesses)] = share


def _start(mutants: list[Mutant], share: list[int], witnesses: Witnesses) -> int:
    """Fork a process that judges a share of the mutants; the pipe on which it tells."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        return reading
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
        sys.setrecursionlimit(400)
        with os.fdopen(writing, "wb", buffering=0) as out:
            for number in share:
                result = judge(mutants[number], witnesses)
                out.write(json.dumps(asdict(result)).encode() + b"\n")
    finally:
        os._exit(0)
