"""pgbench: its own transactions, and sessions that lock the same rows."""

from pathlib import Path
from tempfile import TemporaryDirectory

from tools.postgres import Server
from tools.workloads.sql_loads import FIXTURES

CLIENTS = 4


def run(server: Server, seed: int, seconds: float) -> None:
    """Its standard transactions, with checkpoints and vacuums between."""
    server.pgbench("-i", "-q", "-s", "3")
    for part in range(3):
        server.pgbench(*_for(seconds / 3), f"--random-seed={seed + part}")
        server.sql("VACUUM" if part == 0 else "CHECKPOINT")


def run_multixacts(server: Server, seed: int, seconds: float) -> None:
    """Rows that several sessions lock and update at once; then all of it is frozen and cut off."""
    server.psql(
        "CREATE TABLE mx(a int PRIMARY KEY, b int) WITH (fillfactor = 50);"
        "INSERT INTO mx SELECT g, 0 FROM generate_series(1, 200) g;"
    )
    with TemporaryDirectory() as name:
        script = Path(name) / "multixact.pgbench"
        script.write_bytes((FIXTURES / "multixact.pgbench").read_bytes())
        Path(name).chmod(0o755)
        arguments = (*_for(seconds), f"--random-seed={seed}", "-f", str(script))
        running = server.start_pgbench(*arguments)
        while running.poll() is None:
            server.sql("SELECT pg_sleep(1)")
            server.sql("VACUUM mx")
    _lock_what_is_updated(server)
    _freeze_everything(server)


def _lock_what_is_updated(server: Server) -> None:
    """A lock on an old version of a row goes on to the new one, which nobody sees yet."""
    with server.connect() as updating, server.connect() as locking:
        updating.execute("BEGIN")
        updating.execute("UPDATE mx SET b = b + 1 WHERE a <= 50")
        locking.execute("SELECT a FROM mx WHERE a <= 50 FOR KEY SHARE")
        updating.execute("COMMIT")


def _freeze_everything(server: Server) -> None:
    """Every database, those that nobody may connect to included: the SLRUs can be cut off then."""
    server.sql("UPDATE pg_database SET datallowconn = true")
    for (name,) in server.sql("SELECT datname FROM pg_database"):
        server.sql("VACUUM (FREEZE)", name)
    server.sql("UPDATE pg_database SET datallowconn = false WHERE datname = 'template0'")


def _for(seconds: float) -> tuple[str, ...]:
    return "-n", "-c", str(CLIENTS), "-T", str(max(1, round(seconds)))
