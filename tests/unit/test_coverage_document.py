"""docs/redo-coverage.md as it was committed, and how it is made of counts."""

import re
from pathlib import Path
from typing import Any

from formats import rmgr
from formats.postgres_versions import VERSIONS
from tools import coverage_document
from tools.coverage_reasons import UNSEEN, WITHOUT_PAGES, ZEROS
from tools.redo_coverage import COLUMNS, SETTINGS

DOCUMENT = Path(__file__).parents[2] / "docs" / "redo-coverage.md"
COMPARISONS_MIN = 2_000_000


def tables(text: str) -> dict[str, list[list[str]]]:
    """The rows of each section's table, without its head."""
    found = {}
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        title = section.splitlines()[0]
        rows = [line for line in section.splitlines() if line.startswith("|")]
        found[title] = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return found


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


def test_every_version_and_kind_is_there_and_every_zero_has_a_reason() -> None:
    found = tables(DOCUMENT.read_text(encoding="utf-8"))
    for title, explanations in (
        ("Pages compared", ZEROS),
        ("Records without a page to compare", UNSEEN),
    ):
        head, _, *rows = found[title]
        assert head[1:6] == [str(version) for version in VERSIONS]
        named = {row[0]: row[1:6] for row in rows}
        for version in VERSIONS:
            for kind in rmgr.OPCODES[version]:
                name = rmgr.show(version, *kind)
                if (name in WITHOUT_PAGES) != (explanations is UNSEEN):
                    continue
                cell = named[name][version - 14]
                if number(cell) == 0:
                    assert name in explanations, f"{version} {name}"
        for name, *cells in rows:
            if "0" in cells[:5]:
                assert len(cells[5]) > 20, f"{name} is at zero, and nothing says why"


def test_sums_and_total() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    *rows, sums = tables(text)["Pages compared"][2:]
    assert sums[0] == "sum"
    for version in range(1, 6):
        counted = [number(row[version]) for row in rows if row[version] != "–"]
        assert sum(counted) == number(sums[version])
    (total,) = re.findall(r"^total: ([\d,]+) pages compared, 0 differences$", text, re.M)
    assert number(total) == sum(map(number, sums[1:6])) >= COMPARISONS_MIN
    loads = tables(text)["The run"][2:]
    assert sum(number(row[4]) for row in loads) == number(total)


def run(major: int, **compared: int) -> dict[str, Any]:
    names = [rmgr.show(major, *kind) for kind in rmgr.OPCODES[major]]
    kinds = {name: dict.fromkeys(COLUMNS, 1) for name in names}
    for name in ("Heap/HOT_UPDATE+INIT", "Hash/SPLIT_PAGE", "Gin/VACUUM_PAGE"):
        kinds[name]["compared"] = 0
    for name, count in compared.items():
        kinds[name.replace("_OF_", "/")]["compared"] = count
    total = sum(kind["compared"] for name, kind in kinds.items())
    return {
        "major": major,
        "minor": f"{major}.1",
        "settings": SETTINGS,
        "workloads": [],
        "kinds": kinds,
        "compared": total,
        "differences": 0,
    }


def test_a_zero_without_a_reason_is_named() -> None:
    assert coverage_document.unexplained([run(18)]) == []
    assert coverage_document.unexplained([run(18, Btree_OF_DEDUP=0)]) == ["18 Btree/DEDUP"]


def test_a_version_that_lacks_a_kind_has_no_count_for_it() -> None:
    rows = tables(coverage_document.document([run(16), run(17)]))["Pages compared"]
    cells = {row[0]: row[1:3] for row in rows}
    assert cells["Heap2/PRUNE"] == ["1", "–"]
    assert cells["Heap2/PRUNE_ON_ACCESS"] == ["–", "1"]
    assert cells["Heap/HOT_UPDATE+INIT"] == ["0", "0"]


def test_runs_of_one_version_are_added_up() -> None:
    first, second = run(18), run(18, Btree_OF_DEDUP=7)
    (both,) = coverage_document.merged([first, second])
    assert both["kinds"]["Btree/DEDUP"]["compared"] == 8
    assert both["compared"] == sum(kind["compared"] for kind in both["kinds"].values())
