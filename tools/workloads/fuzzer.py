"""The SQL fuzzer (tools/sql_fuzzer), from several sessions at once."""

from tools import sql_fuzzer
from tools.postgres import Server
from tools.postgres_binaries import ProgramFailed

SETTINGS = {**sql_fuzzer.SETTINGS, "wal_level": "logical", "max_wal_size": "4GB"}


def run(server: Server, seed: int, seconds: float) -> str:
    """ProgramFailed if a statement ended with an error that none may end with."""
    report = sql_fuzzer.run(server, seed, seconds)
    if report.failures:
        raise ProgramFailed(f"sql_fuzzer, seed {seed}:\n" + "\n".join(report.failures))
    return f"{report.statements} statements"
