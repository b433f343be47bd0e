"""The SQL loads of the tests, one after the other, through psql."""

from pathlib import Path

from tools.postgres import Server

FIXTURES = Path(__file__).parents[2] / "tests" / "fixtures"
ACCESS_METHODS = ("btree", "hash", "gin", "gist", "spgist", "brin", "bloom")


def load(server: Server, name: str, dbname: str = "postgres") -> None:
    server.psql((FIXTURES / name).read_text(encoding="utf-8"), dbname)


def run_access_methods(server: Server, seed: int, seconds: float) -> None:
    """Each index access method with all its records, in a database of its own."""
    for method in ACCESS_METHODS:
        server.sql(f"CREATE DATABASE {method}_load")
        load(server, f"{method}_load.sql", f"{method}_load")
        server.sql("CHECKPOINT")


def run_churn(server: Server, seed: int, seconds: float) -> None:
    load(server, "churn.sql")


def run_transactions(server: Server, seed: int, seconds: float) -> None:
    load(server, "transactions_load.sql")


def run_deep_btree(server: Server, seed: int, seconds: float) -> None:
    load(server, "deep_btree_load.sql")
