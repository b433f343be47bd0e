"""The archives of a base backup as the replication protocol brings them, one shape for all majors.

From 15 on all of it is one copy, whose messages say where an archive begins. 14 has other words in
its command, sends a copy of plain bytes for each tablespace of the list that comes first, and
leaves out the zeros that end a tar archive.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

from psycopg import pq

from formats import lsn
from server.replication import STREAM_END_SECONDS_MAX, ReplicationConnection, StreamEnded, rows
from server.source_errors import SourceError

SILENCE_SECONDS_MAX = 300.0
_COMMAND = (
    "BASE_BACKUP (LABEL 'pageserver', PROGRESS true, CHECKPOINT 'fast', WAIT false, WAL false, "
    "TABLESPACE_MAP true, VERIFY_CHECKSUMS false, MANIFEST 'no')"
)
_COMMAND_14 = (
    "BASE_BACKUP LABEL 'pageserver' PROGRESS FAST NOWAIT TABLESPACE_MAP NOVERIFY_CHECKSUMS"
)
_NEW_ARCHIVE = ord("n")
_DATA = ord("d")


class BackupStart(NamedTuple):
    lsn: int  # where redo starts
    timeline: int
    bytes_total: int  # as estimated by the source


class BackupStream:
    """`begin`, then all `pieces`; then `end_lsn` is known. SourceError if the source fails."""

    def __init__(self, connection: ReplicationConnection, version_number: int) -> None:
        self._connection = connection
        self._is_14 = version_number < 150000
        self._names: list[str] = []  # of archives to come, of 14
        self.end_lsn = 0

    @property
    def has_end_marks(self) -> bool:
        """Whether an archive ends with zeros, so that one that was cut off is recognised."""
        return not self._is_14

    def begin(self) -> BackupStart:
        """Send the command; the source makes a checkpoint, then says where redo starts."""
        self._connection.send(_COMMAND_14 if self._is_14 else _COMMAND)
        deadline = time.monotonic() + STREAM_END_SECONDS_MAX
        tables = []
        for _ in range(2):
            result = self._connection.next_result(deadline)
            if result is None or result.status != pq.ExecStatus.TUPLES_OK:
                raise SourceError(f"{self._connection.source} did not start a base backup")
            tables.append(rows(result))
        copy = self._connection.next_result(deadline)
        if copy is None or copy.status != pq.ExecStatus.COPY_OUT:
            raise SourceError(f"{self._connection.source} sent no base backup")
        (position, timeline), tablespaces = tables[0][0], tables[1]
        if self._is_14:
            self._names = [f"{oid}.tar" if oid else "base.tar" for oid, _, _ in tablespaces]
        total = 1024 * sum(int(size or 0) for _, _, size in tablespaces)
        return BackupStart(lsn.parse(position), int(timeline), total)

    def pieces(self) -> Iterator[str | memoryview]:
        """The name of an archive where one begins, and its bytes."""
        if self._is_14:
            yield self._names.pop(0)
        while True:
            try:
                for message in self._messages():
                    if self._is_14:
                        yield message
                    elif message[0] == _NEW_ARCHIVE:
                        yield bytes(message[1:]).split(b"\0", 1)[0].decode()
                    elif message[0] == _DATA:
                        yield message[1:]
            except StreamEnded as ended:
                if not self._another_copy(ended):
                    self.end_lsn = self._end_lsn(ended)
                    return
            yield self._names.pop(0)

    def _another_copy(self, ended: StreamEnded) -> bool:
        return bool(self._names) and any(
            result.status == pq.ExecStatus.COPY_OUT for result in ended.results
        )

    def _messages(self) -> Iterator[memoryview]:
        """Until the copy ends, which raises StreamEnded."""
        while True:
            message = self._connection.next_message()
            if message is not None:
                yield message
                continue
            if not self._connection.receive(SILENCE_SECONDS_MAX):
                raise SourceError(
                    f"the base backup from {self._connection.source} stopped: nothing came for "
                    f"{SILENCE_SECONDS_MAX:.0f} s"
                )
            # libpq makes its buffer larger only when a read finds it full: with a second read it
            # grows until one takes all that is there, which costs a fifth less than 32 KiB reads.
            self._connection.receive(0.0)

    def _end_lsn(self, ended: StreamEnded) -> int:
        for result in ended.results:
            if result.status == pq.ExecStatus.TUPLES_OK:
                return lsn.parse(rows(result)[0][0])
        raise SourceError(f"the base backup from {self._connection.source} has no end")
