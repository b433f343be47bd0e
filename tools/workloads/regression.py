"""PostgreSQL's own core regression schedule, run by its own pg_regress."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tools.postgres import Server
from tools.postgres_binaries import ProgramFailed
from tools.regression_suite import NoSuite, suite_of
from tools.workloads.workload import WorkloadSkipped

SETTINGS = {
    "wal_level": "logical",
    "max_prepared_transactions": "20",
    "max_connections": "60",
    "autovacuum": "off",
}
SUMMARY = re.compile(r"^#? ?((?:All )?\d+ (?:of \d+ )?tests (?:passed|failed).*)", re.M)
FAILED = re.compile(r"^(?:not ok \d+ +[-+] (\S+)|(?:test|    ) (\S+) +\.\.\. FAILED)", re.M)
EXPECTED_DIRECTORY_FROM = 16  # an option of its own; before it the input directory
MINUTES_MAX = 30
CONNECTIONS = 10


def run(server: Server, seed: int, seconds: float) -> str:
    """The whole parallel schedule; ends by itself. Returns what pg_regress counted.

    Single tests may fail, for a plan that these settings change; the WAL is as good.
    """
    major = server.installation.major
    try:
        suite = suite_of(major)
    except NoSuite as error:
        raise WorkloadSkipped(str(error)) from error
    built = suite.parents[2] / "built"
    if not built.read_text().startswith(f"{server.installation.version()}-"):
        raise WorkloadSkipped(f"the suite in {suite} is not of the server's minor version")
    inputs, outputs = _copied(server, suite)
    output = _pg_regress(server, inputs, outputs)
    summary = SUMMARY.search(output)
    if summary is None:
        raise ProgramFailed(f"pg_regress did not get to its end:\n{output[-2000:]}")
    failed = (old or new for new, old in FAILED.findall(output))
    return ": ".join(filter(None, (summary[1].strip(" ."), ", ".join(failed))))


def _copied(server: Server, suite: Path) -> tuple[Path, Path]:
    """(the suite, a directory for its output) where the server's user can read and write."""
    base = server.data_dir.with_name(server.data_dir.name + ".regress")
    inputs, outputs = base / "suite", base / "output"
    shutil.copytree(suite, inputs)
    for name in ("results", "testtablespace"):
        (outputs / name).mkdir(parents=True)
    owner = server.data_dir.stat()
    for path in (base, *base.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    base.chmod(0o755)
    return inputs, outputs


def _pg_regress(server: Server, inputs: Path, outputs: Path) -> str:
    has_option = server.installation.major >= EXPECTED_DIRECTORY_FROM
    expected = (f"--expecteddir={inputs}",) if has_option else ()
    process = server.installation.start(
        str(inputs / "pg_regress"),
        "--host=127.0.0.1",
        f"--port={server.port}",
        "--user=postgres",
        f"--bindir={server.installation.binaries}",
        f"--dlpath={inputs}",
        f"--inputdir={inputs}",
        f"--outputdir={outputs}",
        f"--schedule={inputs / 'parallel_schedule'}",
        f"--max-connections={CONNECTIONS}",
        *expected,
    )
    try:
        output, _ = process.communicate(timeout=60 * MINUTES_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        raise ProgramFailed(f"pg_regress took more than {MINUTES_MAX} minutes") from None
    return str(output)
