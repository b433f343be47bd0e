"""Why a page could not be made of its versions, in words."""

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


class UnreadPage(str):
    """Nothing is known to be damaged: versions of it could not be read, and the next time they
    perhaps can be. The disk failed, or the bucket does not answer: `error` says which."""

    error: OSError


def text_of(error: Exception) -> str:
    """Why a page's versions could not be read."""
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
        return str(error)
    problem = UnreadPage(error)
    problem.error = error
    return problem


def unless_unreachable(problems: Mapping[int, str]) -> Mapping[int, str]:
    """UnreachableError if one of these pages could be made if the bucket answered."""
    for problem in problems.values():
        if isinstance(problem, UnreadPage) and isinstance(problem.error, UnreachableError):
            raise problem.error
    return problems


def unless_unread(problems: Mapping[int, str]) -> Mapping[int, str]:
    """The OSError for which one of these pages could not be read."""
    for problem in problems.values():
        if isinstance(problem, UnreadPage):
            raise problem.error
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
