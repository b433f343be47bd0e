"""What a base backup says of its cluster before its first file: enough to begin a data directory.

The rest stands in pg_control, which a backup sends last (formats/control_file.py).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class BackupIdentity:
    system_identifier: int
    timeline: int
    start_lsn: int  # redo starts here
    pg_version_num: int  # 180006 is 18.6
    wal_segment_size: int  # bytes
    checksums: bool
