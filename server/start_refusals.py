"""Why a page server does not start: what is looked at before it takes anything from anybody."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.page_store import PageStore
from engine.storage import Storage
from formats.lsn import show as show_lsn
from server.backup import binding
from server.exit_code import ExitCode
from server.page_service import open_listener


class Refused(Exception):
    """The server cannot start; `code` is the exit status."""

    def __init__(self, message: str, code: ExitCode = ExitCode.REFUSED) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def listening_on(address: tuple[str, int]) -> Iterator[None]:
    """An error of the system's is a refusal that says which address it is."""
    try:
        yield
    except OSError as error:
        text = "{}:{}".format(*address)
        raise Refused(f"cannot listen on {text}: {error}", ExitCode.WRONG) from error


def refuse_taken_address(address: tuple[str, int]) -> None:
    """Before the bucket's epoch is taken: who cannot serve must not fence off the one who does."""
    with listening_on(address):
        open_listener(*address).close()


def refuse_to_go_on(store: PageStore, directory: Path, wal_sources: Sequence[str]) -> None:
    """A directory that was restored as of an LSN is only read; an empty one needs a source."""
    end = store.ends_at_lsn
    if end is not None and wal_sources:
        raise Refused(
            f"{directory} was restored as of {show_lsn(end)} and ends there: serve it without "
            "--wal-source. To go on from the primary, restore once more without --lsn, into "
            "another directory"
        )
    if store.ids is None and not wal_sources:
        raise Refused(
            f"{directory} is empty: --wal-source must say of what to take a base backup",
            ExitCode.USAGE,
        )


def refuse_anothers_slot(storage: Storage, directory: Path) -> None:
    """A whole restore has the slot of the server that it was made from, to go on in its place. One
    that is made beside that, to look whether the backup is any good, must not take the slot away.

    For a server with a source, without a bucket, and with no slot named; and for `detach`, which
    would drop it.
    """
    if binding.is_untried_restore(storage, directory):
        url = binding.url_of(storage, directory)
        raise Refused(
            f"{directory} was restored from {url} and has the replication slot of the server that "
            f"writes there: serve it with --s3 {url} to go on in its place, without --wal-source "
            "to look at it, or with --slot NAME to follow the source beside it"
        )
