"""PostgreSQL's own core regression suite, built from Debian's source packages for real servers.

    python -m tools.regression_suite

For each major of MAJORS whose server is installed: the source package of the server's own minor
version (its tests crash other minors) is fetched with `apt-get source`, by lists of our own, so
that nothing of the system's is changed and no root is needed. Of the server only headers are
generated: pg_regress and the test library are built against them, with make, gcc and perl, from 17
on with bison and flex too. What is there already is left as it is. A version that cannot be had is
said so, and is no error.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.postgres_binaries import Installation, MissingPostgres, ProgramFailed

MAJORS = (15, 18)
SUITES = Path(__file__).parent.parent / "build" / "regression"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
REPOSITORY = f"deb-src [signed-by={KEYRING}] http://deb.debian.org/debian {{}} main\n"
SUITES_OF_DEBIAN = ("bookworm", "trixie", "sid")
STEP_SECONDS_MAX = 900
BUILD_STEPS = (
    ("./configure", "-q", "--without-icu", "--without-readline", "--without-zlib"),
    ("make", "-s", "-C", "src/backend", "generated-headers"),
    ("make", "-s", "-j2", "-C", "src/test/regress", "all"),
    ("make", "-s", "-j2", "-C", "contrib/spi"),
)


class NoSuite(Exception):
    """The suite cannot be had; the text says why."""


def suite_of(major: int) -> Path:
    """The directory with pg_regress, its tests and its libraries; NoSuite if it was not built."""
    directory = SUITES / str(major) / "src" / "test" / "regress"
    if not (SUITES / str(major) / "built").exists():
        raise NoSuite(
            f"no regression suite of PostgreSQL {major} was built: `make regression-suite` does it "
            "for versions whose source package Debian has"
        )
    return directory


def main() -> int:
    for major in MAJORS:
        if (SUITES / str(major) / "built").exists():
            continue
        try:
            print(f"PostgreSQL {major}: regression suite of {build(major)}", flush=True)
        except (
            NoSuite,
            MissingPostgres,
            ProgramFailed,
            OSError,
            subprocess.SubprocessError,
        ) as error:
            print(
                f"the regression suite of PostgreSQL {major} cannot be had: {error}",
                file=sys.stderr,
            )
    return 0


def build(major: int) -> str:
    """Fetch and build the suite for the installed server; the source package's version."""
    for program in ("apt-get", "make", "gcc", "perl"):
        if shutil.which(program) is None:
            raise NoSuite(f"{program} is not installed")
    minor = Installation.find(major).version()
    work = SUITES / f"{major}.new"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    version, archive = fetch(major, minor, work)
    subprocess.run(["tar", "-xf", str(archive)], cwd=work, check=True)
    tree = work / f"postgresql-{minor}"
    for step in BUILD_STEPS:
        run(step, tree)
    for library in (tree / "contrib" / "spi").glob("*.so"):
        shutil.copy(library, tree / "src" / "test" / "regress")
    (tree / "built").write_text(f"{version}\n")
    target = SUITES / str(major)
    shutil.rmtree(target, ignore_errors=True)
    tree.rename(target)
    shutil.rmtree(work)
    return version


def fetch(major: int, minor: str, work: Path) -> tuple[str, Path]:
    """The source package of a minor version: its version, and the archive of the sources."""
    options = private_lists(work)
    run(("apt-get", *options, "-q", "-q", "update"), work)
    package = f"postgresql-{major}"
    shown = run(("apt-cache", *options, "showsrc", "--only-source", package), work)
    versions = [v for v in re.findall(r"^Version: (\S+)", shown, re.M) if v.startswith(minor + "-")]
    if not versions:
        raise NoSuite(f"Debian has no source package {package} {minor}")
    run(
        ("apt-get", *options, "-q", "-q", "source", "--download-only", f"{package}={versions[0]}"),
        work,
    )
    return versions[0], next(work.glob("*.orig.tar.*z*"))


def private_lists(work: Path) -> Sequence[str]:
    """Options that have apt work on lists in `work` alone."""
    for directory in ("lists/partial", "cache/archives/partial", "parts"):
        (work / directory).mkdir(parents=True)
    (work / "sources.list").write_text(
        "".join(REPOSITORY.format(suite) for suite in SUITES_OF_DEBIAN)
    )
    settings = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": work / "parts",
        "Dir::State::lists": work / "lists",
        "Dir::Cache": work / "cache",
        "APT::Sandbox::User": "",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def run(command: Sequence[str], directory: Path) -> str:
    """A step's output; NoSuite with its last words if it fails."""
    done = subprocess.run(
        command,
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=STEP_SECONDS_MAX,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode != 0:
        raise NoSuite(f"{' '.join(command[:3])} … failed: {done.stdout[-1000:].strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
