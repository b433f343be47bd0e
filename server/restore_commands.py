"""The statement `restore chunks SPEC`: bundles brought here from the bucket, and made sound.

SPEC is as for --chunks (formats/chunk_filter.py): every bundle with layers of these chunks is then
a local file whose checksums hold. One row says how many there are and what was done.
"""

from collections.abc import Callable, Sequence

from engine.local_copies import Counts
from formats import chunk_filter, pgwire
from formats.chunk_filter import ChunkFilter
from formats.pgwire import TEXT_OID
from server.connection import ClientGone, Connection, StatementError

USAGE = "restore chunks SPEC"
COLUMNS = ("files", "fetched", "damaged_replaced", "bytes_fetched")

Restore = Callable[[ChunkFilter, Callable[[], None]], Counts]
Answer = tuple[list[tuple[str, int]], list[bytes]]


def execute(
    words: Sequence[str],
    restore: Restore | None,
    connection: Connection,
    is_stopping: Callable[[], bool],
) -> Answer:
    """The columns and the row that answer a statement; `restore` None: there is no bucket."""
    if restore is None:
        raise StatementError(
            "this server has no bucket to restore from",
            pgwire.FEATURE_NOT_SUPPORTED,
            "Serve the directory with --s3.",
        )
    try:
        wanted = chunk_filter.parse(words[2])
    except ValueError as error:
        raise StatementError(str(error), pgwire.INVALID_PARAMETER, USAGE) from None
    connection.cancelled.clear()

    def check() -> None:
        if connection.cancelled.is_set():
            text = "canceled at the client's request: the bundles that came so far stay"
            raise StatementError(text, pgwire.QUERY_CANCELED)
        if is_stopping() or connection.hung_up():
            raise ClientGone("gave up while it restored chunks")

    counts = restore(wanted, check)
    values = (counts.files, counts.fetched, counts.replaced, counts.bytes_fetched)
    columns = [(name, TEXT_OID) for name in COLUMNS]
    return columns, [str(value).encode() for value in values]
