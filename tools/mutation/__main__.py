"""Mutation run of redo: is every small fault in it noticed by real WAL's cases or by unit tests?

    python -m tools.redo_cases build/redo-cases          # once: cases from real servers
    python -m tools.mutation [MODULE...] [--seed N --sample N] [--json FILE]
                              [--after FILE] [--report FILE]

Without MODULE all of REDO_MODULES. It runs on a copy of the tree in which nothing is compiled. Exit
code 1: a mutant survived that equivalent.toml does not explain. What a mutant is: mutants.py; who
judges it: stages.py.
"""

import argparse
import importlib.util
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from tools import redo_cases
from tools.mutation import report
from tools.mutation.mutants import Mutant, mutants_of
from tools.mutation.run import Result, Witnesses, run_all
from tools.mutation.stages import Witness, case_witness, observe, test_witness
from tools.redo_cases import Kind, RedoCase

ROOT = Path(__file__).parents[2]
TREE = ("formats", "engine", "server", "tools", "tests", "pyproject.toml")
CASES_PER_KIND_MAX = 8  # and major version
CASES = Path("build/redo-cases")
REDO_MODULES = (
    *sorted(
        f"engine.redo.{path.stem}"
        for path in (ROOT / "engine/redo").glob("*.py")
        if path.stem != "__init__"
    ),
    "engine.reconstruct",
    "formats.index_tuples",
    "formats.page",
)
# Not those that damage records at random: they ask for no more than that nothing crashes.
UNIT_TESTS = (
    "tests/unit/test_redo_*.py",
    "tests/unit/test_effect.py",
    "tests/unit/test_reconstruct.py",
    "tests/unit/test_page.py",
    "tests/unit/test_page_edges.py",
    "tests/unit/test_page_reader.py",
)


class Run:
    """A pytest plugin: pytest collects the unit tests, and then this takes over."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.results: list[Result] = []
        self.console = Console(stderr=True)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("unit tests that cannot be collected")
        modules = {str(ROOT / (name.replace(".", "/") + ".py")): name for name in REDO_MODULES}
        cases = read_cases(self.options.cases)
        with Progress(console=self.console, disable=not self.console.is_terminal) as progress:
            witnesses = Witnesses(
                self.observed([case_witness(case) for case in cases], modules, progress, "cases"),
                self.observed(
                    [test_witness(item) for item in session.items], modules, progress, "unit tests"
                ),
            )
            chosen = list(self.options.modules or REDO_MODULES)
            mutants = mutants_of(ROOT, list(REDO_MODULES), chosen)
            order = random.Random(self.options.seed)
            order.shuffle(mutants)  # the processes have equal shares
            mutants = mutants[: self.options.sample]
            mutants = self.keep_caught(mutants)
            task = progress.add_task("mutants", total=len(mutants))
            for result in run_all(mutants, witnesses, self.options.processes):
                self.results.append(result)
                progress.advance(task)
        return True

    def keep_caught(self, mutants: list[Mutant]) -> list[Mutant]:
        """Take over what an earlier run has caught; returns the mutants that are left to run."""
        if not self.options.after:
            return mutants
        earlier = [Result(**result) for result in json.loads(self.options.after.read_text())]
        caught = {result.key: result for result in earlier if result.stage}
        for mutant in mutants:
            if mutant.key in caught:
                self.results.append(replace(caught[mutant.key], place=mutant.place))
        return [mutant for mutant in mutants if mutant.key not in caught]

    def observed(
        self, witnesses: list[Witness], modules: dict[str, str], progress: Progress, what: str
    ) -> list[Witness]:
        for witness in progress.track(witnesses, description=f"observing {what}"):
            wrong = observe(witness, modules)
            if wrong is not None:
                raise pytest.UsageError(f"{witness.name} fails without any fault: {wrong}")
        return witnesses


def read_cases(directory: Path) -> list[RedoCase]:
    """The first of each kind: they were kept in the order of what they add."""
    kept, count = [], Counter[tuple[int, Kind]]()
    for path in sorted(directory.glob("*.cases")):
        for case in redo_cases.read(path):
            count[case.major, case.kind] += 1
            if count[case.major, case.kind] <= CASES_PER_KIND_MAX:
                kept.append(case)
    return kept


def interpreted_tree(directory: Path) -> None:
    """A copy of the tree in which nothing is compiled."""
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
            shutil.copytree(source, directory / name, ignore=ignored)
        else:
            shutil.copy(source, directory / name)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", choices=[*REDO_MODULES, []], metavar="MODULE")
    parser.add_argument("--cases", type=Path, default=CASES, help="what tools.redo_cases wrote")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample", type=int, help="this many mutants, chosen by the seed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--after", type=Path, help="only what survived an earlier run's --json")
    parser.add_argument("--json", type=Path, help="write every result")
    parser.add_argument("--report", type=Path, help="write docs/redo-mutation.md")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    for name in ("cases", "after", "json", "report"):
        path = getattr(options, name)
        if path is not None:
            setattr(options, name, path.absolute())
    spec = importlib.util.find_spec("engine.redo.part")
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        paths = [
            word
            for name in ("cases", "after", "json", "report")
            if getattr(options, name)
            for word in (f"--{name}", str(getattr(options, name)))
        ]
        command = [sys.executable, "-m", "tools.mutation", *arguments, *paths]
        (ROOT / "build").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="mutation-", dir=ROOT / "build") as tree:
            interpreted_tree(Path(tree))
            return subprocess.run(command, cwd=tree).returncode
    run = Run(options)
    tests = [
        str(path)
        for pattern in UNIT_TESTS
        for path in sorted(ROOT.glob(pattern))
        if "garbage" not in path.name
    ]
    switches = [
        "-p",
        "no:timeout",
        "-p",
        "no:cacheprovider",
        "-s",
        "-qq",
        "--no-header",
        "--assert=plain",
        "--rootdir",
        str(ROOT),
    ]
    code = pytest.main([*switches, *tests], plugins=[run])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return 2
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in run.results], indent=1))
    summary = report.Summary(run.results)
    print(summary.table())
    for result in summary.unexplained:
        print(f"survived: {result.place}: {result.key}")
    stale = [] if options.sample else summary.stale()
    for key in stale:
        print(f"equivalent.toml gives a reason for what does not survive: {key}")
    if options.report:
        options.report.write_text(summary.document(), encoding="utf-8")
    return 1 if summary.unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
