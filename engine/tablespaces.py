"""Which tablespaces there are: what the file tablespace_map of a base backup says, kept up to date.

A line a tablespace: its OID, a space, its path in which backslash, line feed and carriage return
have a backslash before them (do_pg_backup_start, xlog.c). A tablespace in place, which is a
directory below pg_tblspc and no link, has an empty path in its record and no line.
"""

import re
import struct

from engine.record_effects import RecordEffects
from formats.chunk import SmallFile

_SPECIAL = re.compile(rb"([\\\n\r])")
_LINE = re.compile(rb"(\d+) ((?:\\.|[^\\\n])*)\n", re.DOTALL)


class TablespaceRecords:
    def __init__(self, effects: RecordEffects, content: bytes) -> None:
        """`content`: of tablespace_map where ingest begins, empty if it is not there."""
        self._effects = effects
        self._paths = {int(match[1]): match[2] for match in _LINE.finditer(content)}

    def apply(self, info: int, main: bytes, lsn: int) -> None:
        """rmgr Tablespace: src/include/commands/tablespace.h. CREATE: OID, path; DROP: OID."""
        (oid,) = struct.unpack_from("<I", main)
        if info == 0x00:
            path = main[4:].split(b"\0", 1)[0]
            if not path:
                return  # lies in pg_tblspc itself, where no map need lead
            self._paths[oid] = _SPECIAL.sub(rb"\\\1", path)
        elif info == 0x10:
            self._paths.pop(oid, None)
        else:
            return
        lines = (b"%d %s\n" % item for item in sorted(self._paths.items()))
        self._effects.put_file(0, 0, SmallFile.TABLESPACE_MAP, b"".join(lines), lsn)
