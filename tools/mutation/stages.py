"""What has to notice a mutant: cases from real WAL, and unit tests.

Both are run once with the unmutated code, under a tracer, to know which lines each of them executes
(and how long it takes): a mutant is shown only to those that execute its line, the quickest first.
"""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from engine.errors import RequestError
from engine.reconstruct import Reconstruct
from engine.version_set import VersionSet
from tools.mutation.mutants import Line
from tools.redo_cases import RedoCase

SECONDS_MIN = 0.5
"""Of processor time: who takes this much and TIMES_SLOWER longer than it should hangs."""
TIMES_SLOWER = 30


class Hangs(BaseException):
    """The time is over; not an Exception, so that no test takes it for one that it waits for."""


@dataclass
class Witness:
    """A case or a test, and what it executes."""

    name: str
    run: Callable[[], str | None]  # what is wrong, None if nothing is
    lines: set[Line] = field(default_factory=set)
    seconds: float = 0.0

    def finds(self) -> str | None:
        """What it finds with the code as it is now; "hangs" if it does not come back."""
        limit = max(SECONDS_MIN, TIMES_SLOWER * self.seconds)
        try:
            with _time_limit(limit):
                return self.run()
        except Hangs:
            return "hangs"
        except RecursionError:
            return "hangs"


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise Hangs

    before = signal.signal(signal.SIGVTALRM, end)
    # Again and again: a handler of all exceptions in the code under test may swallow one.
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, SECONDS_MIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def case_name(case: RedoCase) -> str:
    """Sorted by this, cases of the same kind of record stand together."""
    return f"{case.kind} {case.major} {case}"


def case_witness(case: RedoCase) -> Witness:
    """A case, which the code as it is now must pass."""
    versions = VersionSet(sum(len(payload) for _, payload in case.versions), 64)
    for lsn, payload in reversed(case.versions):
        versions.push(memoryview(payload), 0, len(payload), lsn)

    def redo() -> bytearray:
        page = bytearray(case.before)
        reconstruct = Reconstruct(case.major)
        reconstruct.page(versions, versions.oldest, memoryview(page), 0, True)
        return page

    golden = redo()
    difference = case.first_difference(golden)
    if difference is not None:
        raise RequestError(f"{case}: without any fault it differs at byte {difference}")

    def run() -> str | None:
        try:
            page = redo()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        if page == golden:
            return None
        difference = case.first_difference(page)
        if difference is None:
            return None
        return "pd_lsn" if difference < 8 else f"byte {difference}"

    return Witness(case_name(case), run)


def test_witness(item: pytest.Item) -> Witness:
    """A unit test that pytest has collected."""

    def run() -> str | None:
        item._initrequest()  # type: ignore[attr-defined]  # else it has the fixtures of last time
        reports = runtestprotocol(item, log=False, nextitem=None)
        failed = [report for report in reports if report.failed]
        return f"{failed[0].when} of {item.name}" if failed else None

    return Witness(item.nodeid, run)


def observe(witness: Witness, modules: dict[str, str]) -> str | None:
    """Run once without faults and note lines and time; `modules` by file name.

    Returns what is wrong, if anything: such a witness is of no use.
    """
    lines = witness.lines
    named: dict[CodeType, str | None] = {}

    def call(frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        code = frame.f_code
        if code not in named:
            named[code] = modules.get(code.co_filename)
        module = named[code]
        if module is None:
            return None

        def line(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
            if event == "line":
                lines.add((module, frame.f_lineno))
            return line

        return line

    begin = time.process_time()
    wrong = witness.run()
    witness.seconds = time.process_time() - begin
    if wrong is None:
        sys.settrace(call)
        try:
            wrong = witness.run()
        finally:
            sys.settrace(None)
    return wrong
