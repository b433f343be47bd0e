"""A base backup over the replication protocol, straight into the page store.

BASE_BACKUP sends one tar archive for each tablespace, the main data directory last and pg_control
at its very end. The files are cut into pieces of up to 1 MiB and handed on as they come; nothing
is written to a file of ours and nothing is kept until the store says that the backup is complete.

The pages are *fuzzy*: they were read while the cluster went on writing, so a page may be torn, or
older than the backup's end, and WAL from the start LSN on mends it. Where the cluster has data
checksums they are checked: a page of a visibility or free space map that is wrong becomes zeros,
as PostgreSQL itself does when it reads one; others are marked, counted and left to WAL.
"""

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from engine.backup_identity import BackupIdentity
from formats import page_checksum
from formats.chunk import BLOCK_BYTES, SEGMENT_BLOCKS, ChunkKey, ChunkKind, Fork
from formats.control_file import ControlFile, ControlVersionError, parse_control_file
from formats.errors import CorruptionError
from formats.tar_stream import MemberSink, TarMember, TarStream
from server.backup_members import SmallFileMember, classify
from server.backup_stream import BackupStream
from server.replication import (
    ReplicationConnection,
    StopSignal,
)
from server.source_errors import SourceError, is_not_offered, other_system_identifier
from server.source_facts import check_control_file, read_source_facts

PIECE_BYTES = 1 << 20
SMALL_FILE_BYTES_MAX = 64 << 20
_CONTROL_FILE = "global/pg_control"
_HINT_FORKS = (Fork.FSM, Fork.VM)


class BackupStore(Protocol):
    """What takes a base backup in, called by one thread."""

    def begin_base_backup(self, identity: BackupIdentity) -> None:
        """Drop what an earlier backup left and start."""

    def abort_base_backup(self) -> None:
        """Drop what came of a backup that is not complete."""

    def add_pages(self, key: ChunkKey, first_block: int, data: memoryview) -> None:
        """Blocks of a relation or SLRU segment, numbered from its start.

        What is in `data` changes when this has returned.
        """

    def mark_torn(self, key: ChunkKey, block: int) -> None:
        """A page was read while it was written: WAL must replace it before the backup's end."""

    def chunk_size(self, key: ChunkKey, n_blocks: int) -> None:
        """The file of a segment ended with so many blocks, perhaps none."""

    def add_file(self, name: str, data: bytes) -> None:
        """A small file, whole."""

    def finish_base_backup(self, end_lsn: int) -> None:
        """All of it is there; pages can be read when WAL up to `end_lsn` is in."""


@dataclass
class BackupReport:
    """What a base backup brought."""

    start_lsn: int = 0
    end_lsn: int = 0
    bytes_received: int = 0
    bytes_total: int = 0  # as estimated by the source at the start
    files: int = 0
    ignored_files: int = 0
    zeroed_pages: int = 0  # of visibility and free space maps, checksum wrong
    torn_pages: int = 0  # others with a wrong checksum: WAL up to the end LSN must mend them
    seconds: float = 0.0


class BaseBackup:
    """One attempt: `take` runs it; SourceError, CorruptionError or Stopped if it fails."""

    def __init__(
        self,
        connection: ReplicationConnection,
        store: BackupStore,
        on_begin: Callable[[BackupIdentity], None],
        on_progress: Callable[[BackupReport], None],
    ) -> None:
        self._connection = connection
        self._store = store
        # One for all pieces: the first touch of fresh memory costs more than filling it.
        self._buffer = memoryview(bytearray(PIECE_BYTES))
        self._on_begin = on_begin
        self._on_progress = on_progress
        self._report = BackupReport()
        self._system_identifier = 0
        self._checksums = False
        self._control: ControlFile | None = None

    def take(self, system_identifier: int | None) -> BackupReport:
        """Take the backup; of the cluster `system_identifier`, if that is known already."""
        began = time.monotonic()
        found = self._connection.identify_system().system_identifier
        if system_identifier is not None and system_identifier != found:
            raise other_system_identifier(system_identifier, found, self._connection.source)
        try:
            facts = read_source_facts(self._connection)
            stream = BackupStream(self._connection, facts.version_number)
            start = stream.begin()
        except SourceError as error:
            if not is_not_offered(error):
                raise
            raise SourceError(
                f"{self._connection.source} gives no base backup: {error.message}",
                "Name a server of the same cluster that does with --base-source",
                permanent=True,
            ) from None
        self._system_identifier = found
        self._checksums = facts.checksums
        identity = BackupIdentity(
            system_identifier=found,
            timeline=start.timeline,
            start_lsn=start.lsn,
            pg_version_num=facts.version_number,
            wal_segment_size=facts.wal_segment_bytes,
            checksums=facts.checksums,
        )
        self._store.begin_base_backup(identity)
        self._on_begin(identity)
        self._report.start_lsn, self._report.bytes_total = start.lsn, start.bytes_total
        self._receive(stream)
        if self._control is None:
            raise SourceError(f"the base backup from {self._connection.source} has no pg_control")
        # From a standby, pages may be as new as its minimum recovery point.
        self._report.end_lsn = max(stream.end_lsn, self._control.minimum_recovery_lsn)
        self._store.finish_base_backup(self._report.end_lsn)
        self._report.seconds = time.monotonic() - began
        return self._report

    def _receive(self, stream: BackupStream) -> None:
        """Take all archives."""
        tar: TarStream | None = None
        for piece in stream.pieces():
            if isinstance(piece, str):
                if tar is not None:
                    tar.finish()
                tar = self._open_archive(piece, stream.has_end_marks)
            elif tar is not None:
                tar.feed(piece)
                self._report.bytes_received += len(piece)
            self._on_progress(self._report)
        if tar is not None:
            tar.finish()

    # Archives and their members

    def _open_archive(self, name: str, has_end_mark: bool) -> TarStream:
        """ "OID.tar" for a tablespace, "base.tar" for the main data directory."""
        number = name.removesuffix(".tar")
        tablespace = int(number) if number.isdecimal() else None
        return TarStream(
            name, lambda member: self._open_member(member, tablespace), has_end_mark=has_end_mark
        )

    def _open_member(self, member: TarMember, tablespace: int | None) -> MemberSink | None:
        if not member.is_file:
            return None
        kind = classify(member.name, tablespace)
        if kind is None:
            self._report.ignored_files += 1
            return None
        self._report.files += 1
        if isinstance(kind, SmallFileMember):
            return _FileSink(kind.name, member.size, self._add_file)
        verify = self._checksums and kind.kind == ChunkKind.REL
        return _PagesSink(
            kind, member.size, self._store, self._report if verify else None, self._buffer
        )

    def _add_file(self, name: str, data: bytes) -> None:
        if name == _CONTROL_FILE:
            source = self._connection.source
            try:
                self._control = parse_control_file(data, f"{name} of {source}")
            except ControlVersionError as error:
                raise SourceError(str(error), permanent=True) from None
            check_control_file(source, self._control, self._system_identifier)
        self._store.add_file(name, data)


class _FileSink:
    """Collects a small file."""

    def __init__(self, name: str, size: int, add_file: Callable[[str, bytes], None]) -> None:
        if size > SMALL_FILE_BYTES_MAX:
            raise CorruptionError(
                "small file of the base backup", name, f"up to {SMALL_FILE_BYTES_MAX} bytes", size
            )
        self._name = name
        self._data = bytearray()
        self._add_file = add_file

    def write(self, data: memoryview) -> None:
        self._data += data

    def close(self) -> None:
        self._add_file(self._name, bytes(self._data))


class _PagesSink:
    """Cuts a segment's file into pieces of whole pages.

    A file that is not a whole number of pages was being extended; PostgreSQL does not count the
    part of a page either.
    """

    def __init__(
        self,
        key: ChunkKey,
        size: int,
        store: BackupStore,
        verify: BackupReport | None,
        buffer: memoryview,
    ) -> None:
        self._key = key
        self._store = store
        self._verify = verify
        self._left = size // BLOCK_BYTES * BLOCK_BYTES
        self._block = 0
        self._piece = buffer[: min(self._left, PIECE_BYTES)]
        self._filled = 0

    def write(self, data: memoryview) -> None:
        while len(data) > 0 and self._left:
            taken = min(len(data), len(self._piece) - self._filled)
            self._piece[self._filled : self._filled + taken] = data[:taken]
            self._filled += taken
            data = data[taken:]
            if self._filled == len(self._piece):
                self._hand_on()

    def _hand_on(self) -> None:
        piece = self._piece
        if self._verify is not None:
            for index in check_pages(self._key, self._block, piece, self._verify):
                self._store.mark_torn(self._key, self._block + index)
        self._store.add_pages(self._key, self._block, piece)
        self._block += len(piece) // BLOCK_BYTES
        self._left -= len(piece)
        self._piece = piece[: min(self._left, PIECE_BYTES)]
        self._filled = 0

    def close(self) -> None:
        self._store.chunk_size(self._key, self._block)


def check_pages(key: ChunkKey, block: int, pages: memoryview, report: BackupReport) -> list[int]:
    """Count the pages with a wrong checksum; make zeros of those that are only hints.

    Returns which of the others are wrong: their indexes in `pages`.
    """
    wrong = array("I", bytes(4 * (len(pages) // BLOCK_BYTES)))
    count = page_checksum.find_bad_checksums(pages, key.seg * SEGMENT_BLOCKS + block, wrong)
    if key.fork not in _HINT_FORKS:
        report.torn_pages += count
        return wrong[:count].tolist()
    report.zeroed_pages += count
    for index in wrong[:count]:
        pages[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES] = bytes(BLOCK_BYTES)
    return []


def take_base_backup(
    conninfo: str,
    application_name: str,
    store: BackupStore,
    stop: StopSignal,
    *,
    system_identifier: int | None = None,
    on_begin: Callable[[BackupIdentity], None] = lambda identity: None,
    on_progress: Callable[[BackupReport], None] = lambda report: None,
) -> BackupReport:
    """Connect, take one base backup into the store, disconnect.

    `on_begin` is called when the start LSN is known and the store has begun, before the first file.
    """
    connection = ReplicationConnection.open(conninfo, application_name, stop)
    try:
        return BaseBackup(connection, store, on_begin, on_progress).take(system_identifier)
    finally:
        connection.close()
