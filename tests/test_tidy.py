"""The style of this project, as far as a program can tell.

Imports point one way, formats <- engine <- server <- tools; files, functions and lines stay short;
nothing is left for later in a comment; the list of kernels is true. What ruff and mypy can say is
theirs to say (`make lint`).
"""

import ast
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("formats", "engine", "server", "tools")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
LINE_LENGTH_MAX = 100

INLINE_ONLY = {"formats.coding", "server.socket_calls"}
"""Their .pxd holds bodies that are expanded into kernels; the .py is what interpreted ones call."""

ENTRY_POINTS = {"engine.index_check", "server.backup.upload_process", "server.cli"}
"""Modules that nobody imports, because somebody starts them."""

# Written so that this file does not find itself.
LEFTOVER = re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X|HA[C]K)\b")
MACHINE = re.compile(r"/(?:wor[k]/|roo[t]/|hom[e]/|tm[p]/|op[t]/embedded)")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def files_of(folders: tuple[str, ...], *endings: str) -> list[Path]:
    """Files of ours, relative to the root."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    return sorted(
        path.relative_to(ROOT)
        for path in found
        if path.suffix in endings and "__pycache__" not in path.parts
    )


SOURCES = [Path("setup.py"), *files_of((*LAYERS, "tests"), ".py", ".pxd")]
MODULES = files_of(LAYERS, ".py")
TEXTS = [
    *SOURCES,
    *files_of(("docs", "tests"), ".md", ".txt", ".sql", ".svg", ".toml"),
    *(path.relative_to(ROOT) for path in sorted(ROOT.glob("*.md"))),
    Path("Makefile"),
    Path("pyproject.toml"),
    Path(".ci/run"),
]


def text_of(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Full names that a module imports, wherever in it, its kernel's cimports among them."""
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
    declarations = path.with_suffix(".pxd")
    if (ROOT / declarations).exists():
        pattern = re.compile(r"^(?:from (\S+) )?cimport (.+)$", re.MULTILINE)
        for package, names in pattern.findall(text_of(declarations)):
            prefix = f"{package}." if package else ""
            yield from (prefix + name.split()[0].strip(",") for name in names.split(","))
            yield package


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_one_way(path: Path) -> None:
    above = {*LAYERS[LAYERS.index(path.parts[0]) + 1 :], "tests"}
    wrong = sorted(name for name in imports_of(path) if name.partition(".")[0] in above)
    assert not wrong, f"{path} imports {wrong}"


def test_every_module_is_used() -> None:
    imported = {name for path in MODULES for name in imports_of(path)}
    modules = {module_name(path) for path in MODULES if path.name != "__init__.py"}
    unused = {name for name in modules - imported if not name.startswith("tools.")}
    assert unused == ENTRY_POINTS


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_lengths(path: Path) -> None:
    lines = text_of(path).splitlines()
    assert len(lines) <= FILE_LINES_MAX
    long_lines = [number for number, line in enumerate(lines, 1) if len(line) > LINE_LENGTH_MAX]
    assert not long_lines, f"lines of {path} with more than {LINE_LENGTH_MAX} characters"
    if path.suffix == ".py":
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= FUNCTION_LINES_MAX, f"{path}:{node.lineno}: {node.name}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_file_opens_with_what_it_is_for(path: Path) -> None:
    tree = ast.parse(text_of(path))
    assert not tree.body or ast.get_docstring(tree), f"{path} has no docstring"


@pytest.mark.parametrize("path", TEXTS, ids=str)
def test_nothing_is_left_behind(path: Path) -> None:
    for number, line in enumerate(text_of(path).splitlines(), 1):
        assert not LEFTOVER.search(line), f"{path}:{number}: a note for later"
        assert not MACHINE.search(line), f"{path}:{number}: a path of somebody's machine"


def test_names() -> None:
    assert not [path for path in SOURCES if path.stem in ("utils", "util", "helpers", "misc")]
    assert not [path for path in SOURCES if "manager" in path.stem]
    for path in MODULES:
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.ClassDef):
                assert "manager" not in node.name.lower(), f"{path}:{node.lineno}: {node.name}"


@pytest.mark.parametrize("path", [path for path in TEXTS if path.suffix == ".md"], ids=str)
def test_files_that_a_document_names_exist(path: Path) -> None:
    """`engine/journal.py`, or `journal.py` where the folder is clear, or `unit/test_redo_*.py`."""
    ours = [Path("/", file) for file in (*TEXTS, *files_of(LAYERS, ".sql"))]
    for name in re.findall(r"`([\w./*-]+\.(?:py|pxd|md|toml|sql))`", text_of(path)):
        known = any(file.match(f"**/{name}") for file in ours) or name.endswith("pageserver.toml")
        assert known, f"{path} names {name}"


def test_every_dependency_has_its_reason() -> None:
    tables = project()
    required = [
        *tables["project"]["dependencies"],
        *tables["build-system"]["requires"],
        *tables["project"]["optional-dependencies"]["dev"],
    ]
    names = [re.split(r"[\[=>]", requirement)[0] for requirement in required]
    reasons = re.findall(
        r"^\| ([\w-]+) \| (?!Why)", text_of(Path("docs/dependencies.md")), re.MULTILINE
    )
    assert sorted(reasons) == sorted(names)


# Kernels ------------------------------------------------------------------------------------------


def test_the_list_of_kernels_is_true() -> None:
    declared = {module_name(path) for path in files_of(LAYERS, ".pxd")}
    kernels = project()["tool"]["pageserver"]["kernels"]
    assert kernels == sorted(declared - INLINE_ONLY)
    assert declared >= INLINE_ONLY


def test_kernels_are_untyped_for_mypy_and_nothing_else_is() -> None:
    overrides = project()["tool"]["mypy"]["overrides"]
    untyped = [entry["module"] for entry in overrides if "disallow_untyped_defs" in entry]
    assert untyped == [project()["tool"]["pageserver"]["kernels"]]


@pytest.mark.parametrize("name", project()["tool"]["pageserver"]["kernels"])
def test_a_kernel_says_how_it_is_compiled(name: str) -> None:
    path = Path(name.replace(".", "/") + ".py")
    first = text_of(path).partition("\n")[0]
    assert first.startswith("# cython: ")
    assert "annotation_typing=False" in first, "annotations would become C types"


# Packages -----------------------------------------------------------------------------------------


def test_packages_are_found_in_this_checkout_and_shadow_nothing() -> None:
    packages = project()["tool"]["setuptools"]["packages"]
    for name in packages:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin == str(ROOT / name.replace(".", "/") / "__init__.py")
        assert name not in sys.stdlib_module_names
    assert {name.partition(".")[0] for name in packages} == set(LAYERS)


DEVELOPERS_PACKAGES = {
    f"tools.{name}"
    for name in ("bench", "compaction_simulator", "fuzz", "mutation", "sql_fuzzer", "workloads")
}


def test_every_package_that_is_shipped_is_listed() -> None:
    found = {module_name(path) for path in MODULES if path.name == "__init__.py"}
    shipped = {name for name in found if name not in DEVELOPERS_PACKAGES}
    assert sorted(shipped) == sorted(project()["tool"]["setuptools"]["packages"])
