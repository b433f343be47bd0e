"""What a mutation run says: scores by module, and the survivors with the reason of each.

equivalent.toml beside this holds the reasons, by the mutant's text: a reason whose code has changed
is *stale*, and is shown as that.
"""

import tomllib
from collections import Counter, defaultdict
from pathlib import Path

from tools.mutation.run import Result

REASONS = Path(__file__).with_name("equivalent.toml")
COLUMNS = ("module", "mutants", "cases", "pd_lsn", "tests", "hangs", "equivalent", "survived")


def reasons(path: Path = REASONS) -> dict[str, str]:
    """Why a mutant is no fault, by its key."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        mutant: group["why"] for group in content.get("group", []) for mutant in group["mutants"]
    }


def outcome(result: Result, explained: dict[str, str]) -> str:
    """The column of a result."""
    if result.found == "hangs" or result.stage == "crash":
        return "hangs"
    if result.stage == "case":
        return "pd_lsn" if result.found == "pd_lsn" else "cases"
    if result.stage == "test":
        return "tests"
    return "equivalent" if result.key in explained else "survived"


class Summary:
    def __init__(self, results: list[Result], explained: dict[str, str] | None = None) -> None:
        self.results = sorted(results, key=lambda result: (result.place, result.key))
        self.explained = reasons() if explained is None else explained
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        for result in self.results:
            module = result.place.partition(":")[0]
            for name in (module, "total"):
                self.counts[name][outcome(result, self.explained)] += 1

    @property
    def unexplained(self) -> list[Result]:
        return [r for r in self.results if outcome(r, self.explained) == "survived"]

    def rows(self) -> list[tuple[str, ...]]:
        names = sorted(set(self.counts) - {"total"}) + ["total"]
        return [
            (name, str(self.counts[name].total()))
            + tuple(str(self.counts[name][column]) for column in COLUMNS[2:])
            for name in names
        ]

    def table(self) -> str:
        """Aligned, and Markdown."""
        rows = [COLUMNS, *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
        lines = [
            "| "
            + " | ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            + " |"
            for row in rows
        ]
        rule = "|-" + "-|-".join("-" * width for width in widths) + "-|"
        return "\n".join([lines[0], rule, *lines[1:]])

    def document(self) -> str:
        return self.table()
