"""docs/adding-a-postgres-version.md and docs/redo-effects.md name what exists, and all of it."""

import re
from pathlib import Path

import pytest

from formats import wal_page
from formats.postgres_versions import VERSION_MAX, VERSION_MIN, VERSIONS

ROOT = Path(__file__).parent.parent.parent
ADDING = (ROOT / "docs/adding-a-postgres-version.md").read_text()
EFFECTS = (ROOT / "docs/redo-effects.md").read_text()
FILE = re.compile(r"`((?:[a-z_.]+/)*[A-Za-z0-9_.]+\.(?:py|pxd|md)|\.ci/run)`")
NAME = r"\b(?:version|major|version_number|pg_version)\)?"
COMPARES = re.compile(
    NAME + r"\s*(?:==|!=|<=|>=|<|>|not in|in)\s*(?:1\d|\(|\[|V)"
    r"|\{1[4-9]: |\b1[4-9]0000\b|\b1300: "
)


@pytest.mark.parametrize("name", sorted({*FILE.findall(ADDING), *FILE.findall(EFFECTS)}))
def test_a_file_that_is_named_exists(name: str) -> None:
    assert (ROOT / name).is_file()


def test_every_file_that_compares_versions_is_named() -> None:
    listed = set(FILE.findall(ADDING))
    comparing = {
        str(path.relative_to(ROOT))
        for folder in ("formats", "engine", "server", "tools")
        for path in (ROOT / folder).rglob("*.py")
        if COMPARES.search(path.read_text())
    }
    assert "engine/redo/heap2.py" in comparing
    assert "server/backup_stream.py" in comparing
    assert comparing - listed == set()


def test_a_test_that_is_named_exists() -> None:
    """`U:file.py::test`, and `::test` of the file named before."""
    named = re.findall(r"`(?:([UI]):(\w+\.py))?(?:::(\w+))?`", EFFECTS)
    folder = {"U": "unit", "I": "integration"}
    text, count = "", 0
    for place, file, test in named:
        if file:
            text = (ROOT / "tests" / folder[place] / file).read_text()
        if test:
            assert f"def {test}(" in text, test
            count += 1
    assert count > 40


def test_a_function_that_is_named_exists() -> None:
    code = "".join(path.read_text() for folder in ("formats", "engine")
                   for path in (ROOT / folder).rglob("*.py"))  # fmt: skip
    names = set(re.findall(r"`(_?[a-z]+(?:_[a-z0-9]+)+)`", EFFECTS))
    words = {"replorigin_checkpoint", "tablespace_map", "pd_lsn"}
    missing = {name for name in names - words if f"def {name}(" not in code}
    assert missing == set()


def test_every_version_has_its_magic() -> None:
    """Beside each other: which versions there are, and the WAL by which they are known."""
    magics = [wal_page.magic(version) for version in VERSIONS]
    assert len(set(magics)) == len(VERSIONS)
    assert 0 not in magics
    assert [wal_page.major_version(magic) for magic in magics] == list(VERSIONS)
    assert (wal_page.magic(VERSION_MIN - 1), wal_page.magic(VERSION_MAX + 1)) == (0, 0)
