"""The SQL fuzzer (tools/sql_fuzzer), from several sessions at once."""

from tools import sql_fuzzer
from tools.postgres import Server

SETTINGS = {**sql_fuzzer.SETTINGS, "wal_level": "logical", "max_wal_size": "4GB"}


def run(server: Server, seed: int, seconds: float) -> str:
    """What PostgreSQL failed in by itself is told, and its WAL compared all the same."""
    report = sql_fuzzer.run(server, seed, seconds)
    told = [f"{report.statements} statements"]
    told += [f"PostgreSQL's own failure: {failure}" for failure in report.failures]
    return "; ".join(told)
