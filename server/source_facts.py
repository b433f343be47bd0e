"""What a source must be for its cluster to be kept here, asked before anything is copied.

The same is checked once more against pg_control at the end of a base backup: only that belongs to
the backup itself, and a standby's own settings do not say what its primary writes.
"""

import re
from dataclasses import dataclass

from formats import postgres_versions
from formats.chunk import BLOCK_BYTES, SEGMENT_BLOCKS
from formats.control_file import ControlFile
from formats.lsn import PAGE_BYTES
from server.replication import ReplicationConnection
from server.source_errors import SourceError

_UNITS = {"": 1, "B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_REBUILD = "Only servers built with PostgreSQL's default sizes can be kept here"
_WAL_LEVEL = "Set wal_level = replica in its postgresql.conf and restart it, then start here again"


@dataclass(frozen=True)
class SourceFacts:
    version_number: int
    wal_segment_bytes: int
    checksums: bool


def read_source_facts(connection: ReplicationConnection) -> SourceFacts:
    """Ask the source for its settings; SourceError if its cluster cannot be kept here."""
    version = connection.server_version_number()
    if version // 10000 not in postgres_versions.VERSIONS:
        raise SourceError(
            f"{connection.source} is PostgreSQL {version // 10000}",
            f"This page server keeps PostgreSQL {postgres_versions.NAMED}",
            permanent=True,
        )
    _refuse_sizes(
        connection.source,
        _bytes(connection.show("block_size")),
        _bytes(connection.show("wal_block_size")),
        _bytes(connection.show("segment_size")),
    )
    _refuse_minimal(connection.source, connection.show("wal_level"))
    return SourceFacts(
        version_number=version,
        wal_segment_bytes=_bytes(connection.show("wal_segment_size")),
        checksums=connection.show("data_checksums") == "on",
    )


def check_control_file(source: str, control: ControlFile, system_identifier: int) -> None:
    """Refuse a base backup whose pg_control is not what was promised."""
    if control.system_identifier != system_identifier:
        raise SourceError(
            f"the base backup from {source} is of the cluster {control.system_identifier}, "
            f"expected {system_identifier}",
            "--base-source and --wal-source must be servers of one cluster",
            permanent=True,
        )
    _refuse_sizes(
        source,
        control.block_bytes,
        control.wal_block_bytes,
        control.relation_segment_blocks * control.block_bytes,
    )
    _refuse_minimal(source, control.wal_level)


def _refuse_sizes(source: str, block: int, wal_block: int, segment: int) -> None:
    for what, found, expected in (
        ("blocks (BLCKSZ)", block, BLOCK_BYTES),
        ("WAL blocks (XLOG_BLCKSZ)", wal_block, PAGE_BYTES),
        ("relation segments (RELSEG_SIZE)", segment, SEGMENT_BLOCKS * BLOCK_BYTES),
    ):
        if found != expected:
            raise SourceError(
                f"{source} has {what} of {found} bytes, expected {expected}",
                _REBUILD,
                permanent=True,
            )


def _refuse_minimal(source: str, wal_level: str) -> None:
    if wal_level == "minimal":
        raise SourceError(
            f"{source} writes WAL with wal_level=minimal, from which pages cannot be rebuilt",
            _WAL_LEVEL,
            permanent=True,
        )


def _bytes(text: str) -> int:
    """The bytes of a setting as SHOW prints it, like 8192 or 16MB."""
    match = re.fullmatch(r"(\d+)(B|kB|MB|GB)?", text)
    if match is None:
        raise SourceError(f"the source shows a size of {text!r}", permanent=True)
    return int(match[1]) * _UNITS[match[2] or ""]
