"""What concerns the cluster: databases by both strategies, tablespaces, maps, backups, restarts."""

import os
from pathlib import Path

from tools.postgres import Server

STRATEGY_FROM = 15  # before it there is but one way, by files
BACKUP_BRACKETS = {
    14: ("pg_start_backup('load', true, false)", "pg_stop_backup(false)"),
    15: ("pg_backup_start('load', true)", "pg_backup_stop()"),
}


def run(server: Server, seed: int, seconds: float) -> None:
    """Ends by itself; the server is restarted once, with other parameters."""
    tablespace = server.data_dir.with_name(server.data_dir.name + ".tablespace")
    _make_directory(server, tablespace)
    server.sql(f"CREATE TABLESPACE elsewhere LOCATION '{tablespace}'")
    server.psql(_ROWS)
    _databases(server)
    _tablespaces(server)
    _backup(server)
    _parameters(server)


_ROWS = """
CREATE TABLE copied(a int PRIMARY KEY, b text);
INSERT INTO copied SELECT g, repeat('b', 50) FROM generate_series(1, 3000) g;
VACUUM copied;
"""
_CHANGES = """
UPDATE copied SET b = 'changed' WHERE a % 3 = 0;
INSERT INTO copied SELECT g, 'new' FROM generate_series(4000, 6000) g;
DELETE FROM copied WHERE a % 5 = 0;
VACUUM copied;
CREATE TABLE made(a int);
INSERT INTO made SELECT generate_series(1, 1000);
VACUUM FULL pg_class;
"""


def _make_directory(server: Server, path: Path) -> None:
    """One that belongs to the server's user, as its data directory does."""
    path.mkdir(mode=0o700)
    owner = server.data_dir.stat()
    os.chown(path, owner.st_uid, owner.st_gid)


def _databases(server: Server) -> None:
    """Copies of a database that has rows, changed at once and after each other's end."""
    strategies: tuple[str, ...] = ("",)
    if server.installation.major >= STRATEGY_FROM:
        strategies = (" STRATEGY file_copy", " STRATEGY wal_log")
    for strategy in strategies:
        server.sql(f"CREATE DATABASE one TEMPLATE postgres{strategy}", "template1")
        server.psql(_CHANGES, "one")
        server.sql(f"CREATE DATABASE two TEMPLATE one TABLESPACE elsewhere{strategy}")
        server.psql("UPDATE copied SET b = 'two' WHERE a % 7 = 0; VACUUM (FREEZE) copied;", "two")
        server.sql("ALTER DATABASE two SET TABLESPACE pg_default")
        server.psql("UPDATE copied SET b = 'moved' WHERE a % 2 = 0; VACUUM copied;", "two")
        server.sql("ALTER DATABASE two SET TABLESPACE elsewhere")
        server.psql("DELETE FROM copied WHERE a % 11 = 0; VACUUM copied;", "two")
        server.sql("DROP DATABASE one")
        server.sql("DROP DATABASE two")


def _tablespaces(server: Server) -> None:
    server.psql(
        "CREATE TABLE there(a int PRIMARY KEY) TABLESPACE elsewhere;"
        "INSERT INTO there SELECT generate_series(1, 2000);"
        "ALTER TABLE there SET TABLESPACE pg_default;"
        "UPDATE there SET a = -a;"
        "ALTER TABLE copied SET TABLESPACE elsewhere;"
        "DELETE FROM copied WHERE a % 2 = 0;"
        "VACUUM copied;"
        "DROP TABLE copied;"
        "DROP TABLESPACE elsewhere;"
    )


def _backup(server: Server) -> None:
    start, stop = BACKUP_BRACKETS[min(server.installation.major, 15)]
    with server.connect() as session:
        session.execute(f"SELECT {start}".encode())
        session.execute(b"UPDATE there SET a = a + 1")
        session.execute(f"SELECT {stop}".encode())


def _parameters(server: Server) -> None:
    """A restart with another max_connections."""
    server.stop()
    server.settings["max_connections"] = "90"
    server.start()
    server.sql("UPDATE there SET a = a + 1")
