"""The mutation run: which faults it makes, who notices them, and a few in redo itself."""

import importlib
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from formats import page as layout
from tests.fixtures import kernel_modes
from tests.fixtures.redo_parts import Row, heap_page
from tools.mutation import report, stages
from tools.mutation.mutants import Mutant, mutants_of
from tools.mutation.run import Result, Witnesses, judge, put_in, run_all
from tools.mutation.stages import Witness
from tools.redo_cases import RedoCase, read, write

ROOT = Path(__file__).parents[2]
SAMPLE = '''
LIMIT = 3


def total(numbers):
    """The sum of those below the limit."""
    found = 0
    i = 0
    while i < len(numbers):
        if numbers[i] < LIMIT:
            found += numbers[i]
        i += 1
    return found
'''


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Mutant]]:
    """Mutants of a module that is imported."""
    (tmp_path / "mutated_sample.py").write_text(SAMPLE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield mutants_of(tmp_path, ["mutated_sample"], ["mutated_sample"])
    sys.modules.pop("mutated_sample", None)


def total(numbers: list[int]) -> int:
    result: int = importlib.import_module("mutated_sample").total(numbers)
    return result


def check(numbers: list[int], expected: int) -> Callable[[], str | None]:
    return lambda: None if total(numbers) == expected else "another sum"


def named(mutants: list[Mutant], text: str) -> Mutant:
    (found,) = (mutant for mutant in mutants if text in mutant.key)
    return found


def test_faults_of_a_function(sample: list[Mutant]) -> None:
    changes = {mutant.key.partition(".")[2] for mutant in sample}
    assert changes >= {
        "LIMIT: LIMIT = 3: 3 -> 4",
        "LIMIT: LIMIT = 3: 3 -> 2",
        "total: found = 0: left out",
        "total: i += 1: i += 1 -> i -= 1",
        "total: i += 1: i += 1 -> i = 1",
        "total: while i < len(numbers):: i < len(numbers) -> i <= len(numbers)",
        "total: while i < len(numbers):: i < len(numbers) -> False",
        "total: if numbers[i] < LIMIT:: numbers[i] < LIMIT -> True",
        "total: return found: found -> 0",
    }
    assert not any("sum of" in change for change in changes)


def test_every_fault_is_put_in_and_taken_out(sample: list[Mutant]) -> None:
    for mutant in sample:
        take_out = put_in(mutant)
        take_out()
        assert total([1, 2, 3]) == 3, mutant.key


@pytest.mark.parametrize(
    ("numbers", "fault", "found"),
    [
        ([1, 2, 3], "i < len(numbers) -> i <= len(numbers)", "another"),
        ([1, 2], "numbers[i] < LIMIT -> numbers[i] <= LIMIT", ""),
        ([1, 2, 3], "numbers[i] < LIMIT -> numbers[i] <= LIMIT", "another sum"),
        ([1, 2, 3], "3 -> 4", "another sum"),
        ([1, 2, 3], "i += 1: left out", "hangs"),
    ],
)
def test_who_notices(sample: list[Mutant], numbers: list[int], fault: str, found: str) -> None:
    witness = Witness("sum", check(numbers, sum(n for n in numbers if n < 3)))
    file = str(importlib.import_module("mutated_sample").__file__)
    assert stages.observe(witness, {file: "mutated_sample"}) is None
    run = witness.run

    def tell_errors() -> str | None:
        try:
            return run()
        except IndexError:
            return "another"

    witness.run = tell_errors
    result = judge(named(sample, fault), Witnesses([], [witness]))
    assert (result.found, bool(result.stage)) == (found, bool(found))


def test_results_come_from_processes_of_their_own(sample: list[Mutant]) -> None:
    witness = Witness("sum", check([1, 2, 3], 3))
    file = str(importlib.import_module("mutated_sample").__file__)
    stages.observe(witness, {file: "mutated_sample"})
    some = [mutant for mutant in sample if mutant.function == "LIMIT"]
    results = list(run_all(some, Witnesses([witness], []), 2))
    assert sorted((result.stage, result.found) for result in results) == [
        ("case", "another sum"),
        ("case", "another sum"),
    ]


def test_a_report_names_survivors_and_stale_reasons() -> None:
    results = [
        Result("engine.redo.heap._lock: a: b", "engine/redo/heap.py:7", "case", found="pd_lsn"),
        Result("engine.redo.heap._lock: a: c", "engine/redo/heap.py:8", ""),
        Result("engine.redo.heap._lock: a: d", "engine/redo/heap.py:9", ""),
    ]
    reasons = {results[1].key: "it is the same", "engine.redo.heap._lock: a: e": "old"}
    summary = report.Summary(results, reasons)
    assert summary.unexplained == results[2:]
    assert summary.stale() == ["engine.redo.heap._lock: a: e"]
    assert summary.rows()[-1] == ("total", "3", "0", "1", "0", "0", "1", "1")
    assert "### it is the same" in summary.document()


def test_reasons_are_of_code_that_is_there() -> None:
    """By the text of the statement: a reason must not outlive it."""
    modules = sorted({key.partition(":")[0].rpartition(".")[0] for key in report.reasons()})
    modules = [module.removesuffix(".Part").removesuffix(".Reconstruct") for module in modules]
    redo = [f"engine.redo.{path.stem}" for path in (ROOT / "engine/redo").glob("[a-z]*.py")]
    everything = [*redo, "engine.reconstruct", "formats.page", "formats.index_tuples"]
    keys = {mutant.key for mutant in mutants_of(ROOT, everything, sorted(set(modules)))}
    assert set(report.reasons()) <= keys


def a_case(lsn: int | None = 0x60) -> RedoCase:
    """A heap tuple is locked."""
    before = heap_page(Row(content=b"\0row"))
    expected = heap_page(Row(xmax=0x01020304, infomask=0x0802 | 0x80 | 0x40, content=b"\0row"))
    layout.set_lsn(expected, 0x50)  # images do not have it yet
    main = struct.pack("<IHBB", 0x01020304, 1, 2 | 4, 0)
    payload = struct.pack("<BBBBBBHIIBI", 8, 10, 0x60, 0, 1, 0, 0, 700, len(main), 0, 5) + main
    return RedoCase(
        18, (10, 0x60, 0, 0), 0, 5, bytes(before), [(0x60, payload)], bytes(expected), lsn
    )


def test_a_case_is_compared_under_masks_but_for_its_lsn() -> None:
    case = a_case()
    page = bytearray(case.expected)
    assert case.first_difference(page) == 0
    layout.set_lsn(memoryview(page), 0x60)
    assert case.first_difference(page) is None
    page[8191 - 24] ^= 1
    assert case.first_difference(page) is not None
    assert a_case(None).first_difference(case.expected) is None


def test_cases_are_kept_in_files(tmp_path: Path) -> None:
    cases = [a_case(), a_case(None)]
    write(tmp_path / "18.cases", cases)
    found = read(tmp_path / "18.cases")
    assert [str(case) for case in found] == [str(case) for case in cases]
    assert [stages.case_witness(case).run() for case in found] == [None, None]


FAULTS = {
    "coding.put_u32(part.page, pos + 4, coding.u32(part.bytes, part.main)): 4 -> 5": "byte",
    "heap_tuple.clear_command(part, pos): left out": "",  # the tuple has no command yet
    "heap_tuple.set_infobits(part, pos, coding.u8(part.bytes, part.main + 6)): 6 -> 7": "byte",
    "return 1: 1 -> 0": "pd_lsn",
    "n = coding.u16(part.bytes, part.main + 4): 4 -> 3": "Error",
}


@pytest.mark.skipif(
    kernel_modes.mode("engine.redo.heap") != kernel_modes.Mode.INTERPRETED,
    reason="faults are put into interpreted kernels; the other run does it",
)
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_in_redo_are_noticed_by_a_case(fault: str) -> None:
    modules = ["engine.redo.heap", "engine.redo.heap_tuple", "engine.reconstruct"]
    files = {str(ROOT / (name.replace(".", "/") + ".py")): name for name in modules}
    witness = stages.case_witness(a_case())
    assert stages.observe(witness, files) is None
    mutants = [m for m in mutants_of(ROOT, modules, modules[:1]) if m.function == "_lock"]
    result = judge(named(mutants, fault), Witnesses([witness], []))
    assert FAULTS[fault] in result.found
    assert bool(result.stage) == bool(FAULTS[fault])
