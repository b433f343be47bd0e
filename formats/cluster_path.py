"""Small files by their path below the data directory, and as chunk keys.

Which paths these are:

    global/pg_control, backup_label, tablespace_map, PG_VERSION    of the cluster
    global/pg_filenode.map                                         of the shared relations
    base/DB/PG_VERSION, base/DB/pg_filenode.map                    of a database
    pg_tblspc/SPC/DB/...                                           of a database elsewhere
    pg_twophase/XID, pg_logical/replorigin_checkpoint

XID has 8 hexadecimal digits, from PostgreSQL 17 on 16, the first half being the epoch. In the key
`seg` is the transaction; `spc` is 1 where there is an epoch, which is then in `db`.
"""

import re

from formats.chunk import ChunkKey, SmallFile, small_file

DEFAULT_TABLESPACE = 1663
GLOBAL_TABLESPACE = 1664

_CLUSTER_FILES = {
    "global/pg_control": SmallFile.PG_CONTROL,
    "backup_label": SmallFile.BACKUP_LABEL,
    "tablespace_map": SmallFile.TABLESPACE_MAP,
    "PG_VERSION": SmallFile.PG_VERSION,
    "pg_logical/replorigin_checkpoint": SmallFile.REPLORIGIN_CHECKPOINT,
}
_DATABASE_FILES = {
    "PG_VERSION": SmallFile.PG_VERSION,
    "pg_filenode.map": SmallFile.PG_FILENODE_MAP,
}
_NAMES = {code: name for name, code in _CLUSTER_FILES.items()}
_DATABASE_NAMES = {code: name for name, code in _DATABASE_FILES.items()}
# Between tablespace and database a real path has a directory of the catalog version.
_DATABASE = re.compile(
    r"(?:base|pg_tblspc/(?P<spc>\d+)(?:/PG_\d+_\d+)?)/(?P<db>\d+)"
    r"/(?P<name>PG_VERSION|pg_filenode\.map)"
)
_TWOPHASE = re.compile(r"pg_twophase/([0-9A-F]{8})?([0-9A-F]{8})")


def small_file_key(path: str) -> ChunkKey | None:
    """The chunk of a small file, None if no such file is kept."""
    if path in _CLUSTER_FILES:
        return small_file(_CLUSTER_FILES[path])
    if path == "global/pg_filenode.map":
        return small_file(SmallFile.PG_FILENODE_MAP, GLOBAL_TABLESPACE, 0)
    if match := _DATABASE.fullmatch(path):
        spc = int(match["spc"] or DEFAULT_TABLESPACE)
        return small_file(_DATABASE_FILES[match["name"]], spc, int(match["db"]))
    if match := _TWOPHASE.fullmatch(path):
        wide, epoch = match[1] is not None, int(match[1] or "0", 16)
        return small_file(SmallFile.PG_TWOPHASE, int(wide), epoch, seg=int(match[2], 16))
    return None


def small_file_path(key: ChunkKey) -> str:
    """The path of a small file's chunk."""
    if key.rel == SmallFile.PG_TWOPHASE:
        epoch = f"{key.db:08X}" if key.spc else ""
        return f"pg_twophase/{epoch}{key.seg:08X}"
    if (key.spc, key.db) == (0, 0):
        return _NAMES[SmallFile(key.rel)]
    name = _DATABASE_NAMES[SmallFile(key.rel)]
    if key.spc == GLOBAL_TABLESPACE:
        return f"global/{name}"
    if key.spc == DEFAULT_TABLESPACE:
        return f"base/{key.db}/{name}"
    return f"pg_tblspc/{key.spc}/{key.db}/{name}"
