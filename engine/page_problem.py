"""Why a page could not be made of its versions, in words."""

import errno
from collections.abc import Mapping

from engine.errors import UnreachableError
from engine.page_reader import PageReader
from formats import rmgr, version
from formats.lsn import show as show_lsn
from formats.version import TORN


class UnreadablePage(str):
    """Nothing is damaged: there is no redo for a record, or the base backup's page was torn.

    An image of the page says the same, by the version `payload`.
    """

    payload: bytes


class UnreachablePage(str):
    """Nothing is damaged: versions of it lie in a bucket that does not answer now."""


def text_of(error: Exception) -> str:
    """Why a page's versions could not be read."""
    return UnreachablePage(error) if isinstance(error, UnreachableError) else str(error)


def unless_unreachable(problems: Mapping[int, str]) -> Mapping[int, str]:
    """UnreachableError if one of these pages could be made if the bucket answered."""
    for problem in problems.values():
        if isinstance(problem, UnreachablePage):
            raise UnreachableError(errno.EIO, str(problem))
    return problems


def problem_of(reader: PageReader, major: int) -> str:
    """Of the last page that `reader` tried; `major` is PostgreSQL's version."""
    text = _describe(reader, major)
    rebuilt = reader.reconstruct
    if rebuilt.unreadable_rmgr < 0:
        return text
    problem = UnreadablePage(text)
    problem.payload = bytes(
        [version.UNREADABLE, rebuilt.unreadable_rmgr, rebuilt.unreadable_info, 0]
    )
    return problem


def _describe(reader: PageReader, major: int) -> str:
    rebuilt = reader.reconstruct
    if rebuilt.unreadable_rmgr < 0:
        return f"its versions do not fit together: {reader.problem}"
    if rebuilt.unreadable_rmgr == TORN:
        return (
            "it was torn in the base backup and nothing replaced it: the source's own page is "
            "damaged, or its full_page_writes was off"
        )
    record = rmgr.show(major, rebuilt.unreadable_rmgr, rebuilt.unreadable_info)
    lsn = show_lsn(rebuilt.unreadable_lsn)
    return (
        f"it was changed at {lsn} by {record}, for which this server has no redo: read it at an "
        "older LSN, or have the source write its relation anew (VACUUM FULL, REINDEX); until an "
        "image of it comes in WAL it cannot be read"
    )
