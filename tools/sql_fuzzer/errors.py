"""Which errors a fuzzed statement may end with.

Sessions interfere, objects of an aborted transaction are missing, a lock is waited for in vain:
such statements are counted and the run goes on. Anything else is a failure: an internal error, a
crash, and also a syntax error, which would be ours.
"""

import psycopg

EXPECTED = {
    "0A000": "not supported for this kind of object",
    "21000": "two rows for one in ON CONFLICT",
    "22012": "division by zero, meant so",
    "23505": "unique violation",
    "23514": "no partition for a row",
    "25P02": "behind an error in a transaction",
    "2BP01": "other objects depend on it",
    "3B001": "no such savepoint",
    "3D000": "no such database",
    "40001": "serialisation",
    "40P01": "deadlock",
    "42602": "no such origin",
    "42701": "column is there already",
    "42703": "column is not there",
    "42704": "no such object",
    "42710": "object is there already",
    "42723": "function is there already",
    "42809": "another kind of index",
    "42P01": "no such table",
    "42P04": "database is there already",
    "42P06": "schema is there already",
    "42P07": "table is there already",
    "42P16": "not for this kind of table",
    "42P17": "not for this kind of index",
    "3F000": "no such schema",
    "54000": "a row too large for an index",
    "55000": "not in this state",
    "55006": "object is used",
    "55P03": "lock not available in time",
    "57014": "statement took too long",
}
INTERNAL_BUT_HARMLESS = (
    "tuple concurrently updated",
    "tuple concurrently deleted",
    "cannot change relation mapping within subtransaction",
    "missing chunk number",
)
"""What PostgreSQL answers as XX000 or XX001 without being in trouble: to concurrent DDL on one
object; to a rewrite of a mapped catalog behind a savepoint; to VACUUM FULL of a table that has dead
rows which somebody may still see, whose values a VACUUM of the TOAST table alone has removed (seen
with 17.10)."""


def sqlstate(error: psycopg.Error) -> str:
    """Its SQLSTATE; "connection" for one that has none: a connection refused or lost."""
    return error.sqlstate or "connection"


def is_expected(error: psycopg.Error) -> bool:
    return error.sqlstate in EXPECTED or any(text in str(error) for text in INTERNAL_BUT_HARMLESS)
