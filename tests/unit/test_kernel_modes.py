"""That a run knows in which mode its kernels are, and that a build cannot leave one out."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures import kernel_modes
from tests.fixtures.kernel_modes import ROOT, Mode

PYPROJECT = """
[tool.pageserver]
kernels = ["formats.small"]

[tool.pytest.ini_options]
pythonpath = ["."]
addopts = "--import-mode=importlib"
"""
SOURCE = """# cython: annotation_typing=False
def twice(number):
    return 2 * number
"""
DECLARATION = "cpdef int twice(int number)\n"
NO_FIXTURES = """# no servers are needed here
page_server = postgres = postgres_templates = receiving = running = small_disk = workspace = None
s3_bucket = s3_server = saved = None
def report_lines(): return []
"""
BROKEN = "cpdef int twice(NoSuchType number)\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project with one kernel, our build and our test configuration."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    shutil.copy(ROOT / "setup.py", tmp_path)
    (tmp_path / "engine").mkdir()
    (tmp_path / "formats").mkdir()
    (tmp_path / "formats/__init__.py").touch()
    (tmp_path / "formats/small.py").write_text(SOURCE)
    (tmp_path / "formats/small.pxd").write_text(DECLARATION)
    fixtures = tmp_path / "tests/fixtures"
    fixtures.mkdir(parents=True)
    for name in ("kernel_modes", "fast_directory"):
        shutil.copy(ROOT / f"tests/fixtures/{name}.py", fixtures)
    shutil.copy(ROOT / "tests/conftest.py", tmp_path / "tests")
    for name in (
        "page_servers", "postgres_servers", "receiving", "restore_source", "running_service",
        "s3_server", "small_disk",
    ):  # fmt: skip
        (fixtures / f"{name}.py").write_text(NO_FIXTURES)
    (tmp_path / "tests/test_one.py").write_text(
        "from formats import small\ndef test_one(): assert small.twice(2) == 4\n"
    )
    return tmp_path


def run(tree: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments], cwd=tree, capture_output=True, text=True, check=False
    )


def run_tests(tree: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return run(tree, "-m", "pytest", "-p", "no:cacheprovider", "tests", *options)


def build(tree: Path) -> "subprocess.CompletedProcess[str]":
    return run(tree, "setup.py", "-q", "build_ext", "--inplace")


def test_every_kernel_has_one_mode() -> None:
    found = kernel_modes.modes()
    assert sorted(found) == sorted(set(kernel_modes.kernels()))
    lines = " ".join(kernel_modes.report_lines())
    assert all(name in lines for name in found)
    for wanted in Mode:
        others = [name for name, mode in found.items() if mode is not wanted]
        assert bool(kernel_modes.complaint(wanted)) is bool(others)


def test_interpreted(tree: Path) -> None:
    done = run_tests(tree, "--require-interpreted")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kernels interpreted: formats.small\n" in done.stdout
    assert "kernels compiled" not in done.stdout
    refused = run_tests(tree, "--require-compiled")
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR
    assert "all kernels must be compiled: formats.small is interpreted" in refused.stderr


def test_compiled_and_stale(tree: Path) -> None:
    built = build(tree)
    assert built.returncode == 0, built.stdout + built.stderr
    done = run_tests(tree, "--require-compiled")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kernels compiled: formats.small\n" in done.stdout
    refused = run_tests(tree, "--require-interpreted")
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR
    assert "formats.small is compiled" in refused.stderr

    (module,) = (tree / "formats").glob("small.*.so")
    later = module.stat().st_mtime + 10
    os.utime(tree / "formats/small.pxd", (later, later))
    refused = run_tests(tree, "--require-compiled")
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR
    assert "formats.small is compiled, but older than its source" in refused.stderr


def test_a_kernel_that_does_not_compile_fails_the_build(tree: Path) -> None:
    (tree / "formats/small.pxd").write_text(BROKEN)
    built = build(tree)
    assert built.returncode != 0
    assert "NoSuchType" in built.stdout + built.stderr
    assert not list((tree / "formats").glob("small.*.so"))


def test_a_kernel_that_is_not_there_fails_the_build(tree: Path) -> None:
    (tree / "formats/small.py").unlink()
    built = build(tree)
    assert built.returncode != 0
    assert "small.py" in built.stdout + built.stderr
