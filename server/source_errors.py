"""What a PostgreSQL source refuses, in words that say what to do about it.

A source's own message names its side of the matter; whoever runs the page server needs the other
half: which setting, which command. Command errors are recognised by their SQLSTATE; errors while
connecting come from libpq as text alone. What matches no rule is passed on as it is.

A `SourceError` is *permanent* when waiting cannot mend it: a person has to act. All others are
worth another attempt, or the next source.
"""

import re
from typing import NamedTuple


class SourceError(Exception):
    """The source cannot do what it was asked; `advice` says what to do, if anything is known."""

    def __init__(
        self, message: str, advice: str = "", *, permanent: bool = False, sqlstate: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.permanent = permanent
        self.sqlstate = sqlstate

    def __str__(self) -> str:
        return f"{self.message}. {self.advice}" if self.advice else self.message


class _Rule(NamedTuple):
    pattern: str
    advice: str
    permanent: bool


_NO_WAL_SENDERS = (
    "Physical replication is switched off there: set wal_level = replica and max_wal_senders to at "
    "least 3 in its postgresql.conf and restart it"
)
_GRANT = (
    "The user of the connection string needs the REPLICATION attribute: ALTER ROLE … REPLICATION"
)
_PG_HBA = (
    "Allow it there: a line `host replication USER ADDRESS scram-sha-256` in pg_hba.conf, then "
    "SELECT pg_reload_conf()"
)
_WAL_REMOVED = (
    "The WAL that follows what is stored here is gone at this source. Name a source that still has "
    "it (--wal-source may be repeated), or start again with an empty data directory, which takes a "
    "new base backup. A replication slot prevents this: check max_slot_wal_keep_size there"
)
_SLOT_INVALID = (
    "The source gave the slot up because it held too much WAL (max_slot_wal_keep_size). Drop it "
    "with `pageserver detach` and start again; if the WAL is gone as well, with an empty data "
    "directory"
)
_RULES = (
    _Rule(r"requested WAL segment \S+ has already been removed", _WAL_REMOVED, True),
    _Rule(r"exceeds max_wal_senders \(currently 0\)", _NO_WAL_SENDERS, True),
    _Rule(
        r"exceeds max_wal_senders",
        "All WAL senders of the source are taken: raise max_wal_senders there",
        False,
    ),
    _Rule(r"wal_level (>=|< replica|to be replica)|requires wal_level", _NO_WAL_SENDERS, True),
    _Rule(
        r"all replication slots are in use",
        "Raise max_replication_slots at the source, or drop a slot that nobody uses "
        "(pg_replication_slots shows them)",
        True,
    ),
    _Rule(
        r"replication slots can only be used if max_replication_slots > 0",
        "Set max_replication_slots at the source to at least 1 and restart it",
        True,
    ),
    _Rule(
        r"replication slot \S+ is active for PID",
        "Another connection uses this slot: two page servers must not share one. If the other is "
        "an old connection of this server it ends by itself within wal_sender_timeout",
        False,
    ),
    _Rule(
        r"can no longer (access|get changes from) replication slot|slot \S+ .*invalidated",
        _SLOT_INVALID,
        True,
    ),
    _Rule(
        r"cannot use a logical replication slot",
        "The slot of this name is a logical one: choose another name with --slot",
        True,
    ),
    _Rule(r"permission denied to start WAL sender|must be superuser or replication", _GRANT, True),
    _Rule(r"permission denied to use replication slots", _GRANT, True),
    _Rule(r"no pg_hba\.conf entry|pg_hba\.conf rejects", _PG_HBA, True),
    _Rule(
        r"(password|peer|ident|certificate|\S+) authentication failed|no password supplied",
        "Check user and password of the connection string (or ~/.pgpass, PGPASSWORD)",
        True,
    ),
    _Rule(r"role \S+ does not exist", "Create it there, or name another user", True),
    _Rule(
        r"is ahead of the WAL flush position of this server",
        "This source has less WAL than is stored here: a standby that lags, or not the server that "
        "the WAL came from",
        False,
    ),
    _Rule(
        r"is not in this server's history",
        "The source went another way before the WAL that is stored here ended: it cannot be "
        "followed. Name a source of the same history, or start with an empty data directory",
        True,
    ),
    _Rule(
        r"WAL generated with full_page_writes=off was replayed",
        "A base backup from a standby needs full_page_writes = on at its primary: set it, run "
        "CHECKPOINT there and try again, or take the backup from the primary (--base-source)",
        True,
    ),
)


def source_error(message: str, sqlstate: str = "") -> SourceError:
    """The error for what a source or libpq said."""
    text = " ".join(re.sub(r"(?m)^(FATAL|ERROR|DETAIL|HINT|PANIC):\s*", "", message).split())
    unquoted = text.replace('"', "")  # majors differ in what they put in quotes
    for rule in _RULES:
        if re.search(rule.pattern, unquoted):
            return SourceError(text, rule.advice, permanent=rule.permanent, sqlstate=sqlstate)
    return SourceError(text, sqlstate=sqlstate)


def other_system_identifier(expected: int, found: int, source: str) -> SourceError:
    return SourceError(
        f"{source} is another cluster: its system identifier is {found}, the data directory holds "
        f"the cluster {expected}",
        "Check the connection string; another cluster needs a data directory of its own",
        permanent=True,
    )


def is_not_offered(error: SourceError) -> bool:
    """Whether a command failed because the source does not know it: one that has WAL only."""
    return error.sqlstate in _NOT_OFFERED


def slot_is_missing(error: SourceError) -> bool:
    return error.sqlstate == _OBJECT_MISSING


def slot_is_given_up(error: SourceError) -> bool:
    """Whether the source keeps nothing for the slot any more, and never will."""
    return error.advice == _SLOT_INVALID


_OBJECT_MISSING = "42704"
_NOT_OFFERED = ("0A000", "42601")  # feature not supported, syntax error
