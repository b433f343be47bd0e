"""Errors that are answers: to one request, or to the wish to open a directory."""

from typing import TypeVar

from formats.lsn import show as show_lsn

Known = TypeVar("Known")


class RequestError(Exception):
    """Unknown relation, LSN below the horizon, block past the end, foreign chunk, unreadable page.

    The text goes to the client as it is: it names what, where, expected and found.
    """


class ArgumentError(RequestError):
    """What is asked for could not be given by any server: a name or a number is wrong."""


class DirectoryRefusedError(Exception):
    """A data directory that is not what the caller takes it for; nothing in it was changed."""


class UnreachableError(OSError):
    """A file's bytes are in a bucket that does not answer now: nothing is damaged, and the same
    read may do better later."""

    def __str__(self) -> str:
        return str(self.strerror)


class IngestStopped(Exception):
    """What ingest waits for does not come; nothing is wrong with the WAL."""


class LayersGoneError(Exception):
    """Layers went between a read of memtables and that of layers, which must begin anew."""


def below_horizon(lsn: int, horizon_lsn: int) -> str:
    """Why nothing is read, or kept, at an LSN."""
    return (
        f"{show_lsn(lsn)} is below the horizon {show_lsn(horizon_lsn)}, the oldest LSN that can be "
        "read, the exact LSNs of points and leases apart"
    )


def known(value: Known | None, why_not: str) -> Known:
    """A value that is there by now; LookupError, and why not, if it is not."""
    if value is None:
        raise LookupError(why_not)
    return value
