"""Fuzzing, and the tests of kernels, with AddressSanitizer: reads and writes out of bounds.

    python -m tools.fuzz.sanitized [--seconds 60] [--seed 2]

builds the kernels once more, in a copy of the tree under build/, with gcc's -fsanitize=address and
=bounds; each target then runs for so many seconds, and the tests of everything that the kernels
parse run after them. Python allocates every object by itself then (PYTHONMALLOC), so that an access
behind a buffer's end is noticed; the targets put inputs at the ends of buffers for that.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
COPY = ROOT / "build" / "sanitized"
FOLDERS = ("formats", "engine", "server", "tools", "tests", "docs")
FLAGS = "-fsanitize=address,bounds -fno-sanitize-recover=all -fno-omit-frame-pointer"
TESTS = ("redo", "wal", "page", "frame", "layer", "pglz", "crc", "coding", "ingest", "memtable")


def library(name: str) -> str:
    """Where the compiler has one of its libraries."""
    found = subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if found == name:
        sys.exit(f"gcc has no {name}: install its sanitizers")
    return str(Path(found).resolve())


def copy_tree() -> None:
    """Sources anew; what was compiled of the same sources before is kept by its time."""
    for folder in FOLDERS:
        ignore = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
        shutil.copytree(ROOT / folder, COPY / folder, ignore=ignore, dirs_exist_ok=True)
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy2(ROOT / name, COPY / name)


def compile_kernels() -> None:
    environment = {**os.environ, "CFLAGS": f"{FLAGS} -w", "LDFLAGS": FLAGS}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=COPY, env=environment, check=True)


def environment() -> dict[str, str]:
    """For a Python that was not built with the sanitizer: its library comes first.

    Python keeps much to its end, so leaks are not looked for.
    """
    return {
        **os.environ,
        "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:handle_segv=1",
        "PYTHONMALLOC": "malloc",
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz.sanitized",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=2)
    options = parser.parse_args(arguments)
    copy_tree()
    compile_kernels()
    fuzz = [sys.executable, "-m", "tools.fuzz", *TARGETS, "--forget"]
    fuzz += ["--seconds", str(options.seconds), "--seed", str(options.seed)]
    paths = sorted(
        path for word in TESTS for path in (COPY / "tests/unit").glob(f"test_{word}*.py")
    )
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, paths)]
    for command in (fuzz, test):
        done = subprocess.run(command, cwd=COPY, env=environment(), check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
