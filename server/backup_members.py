"""Which chunk or small file each file of a base backup is.

    base/DB/REL[_fork][.segment]                      the default tablespace
    global/REL...                                     shared relations, database 0
    PG_…/DB/REL... in archive OID.tar                 tablespace OID
    pg_xact, pg_multixact/members and /offsets, pg_commit_ts    SLRU segments
    the small files that a cluster cannot start without         kept by name

Everything else (configuration, statistics, temporary files) is not the page server's.
"""

import re
from typing import NamedTuple

from formats.chunk import ChunkKey, Fork, Slru, relation, slru
from formats.cluster_path import DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, small_file_key

_FORKS = {None: Fork.MAIN, "fsm": Fork.FSM, "vm": Fork.VM, "init": Fork.INIT}
_RELATION = re.compile(
    r"(?:base/(?P<db>\d+)|(?P<glob>global)|PG_\d+_\d+/(?P<spcdb>\d+))"
    r"/(?P<rel>[1-9]\d*)(?:_(?P<fork>fsm|vm|init))?(?:\.(?P<seg>[1-9]\d*))?"
)
_SLRU = re.compile(
    r"(pg_xact|pg_multixact/members|pg_multixact/offsets|pg_commit_ts)/([0-9A-F]{4,8})"
)
_SLRUS = {
    "pg_xact": Slru.XACT,
    "pg_multixact/members": Slru.MULTIXACT_MEMBERS,
    "pg_multixact/offsets": Slru.MULTIXACT_OFFSETS,
    "pg_commit_ts": Slru.COMMIT_TS,
}


class SmallFileMember(NamedTuple):
    """A small file, under its path below the data directory."""

    name: str


def classify(name: str, tablespace: int | None) -> ChunkKey | SmallFileMember | None:
    """What the member `name` of an archive is; None if it is not kept.

    `tablespace` is the OID of the archive's tablespace, None for the main data directory.
    """
    in_tablespace = name.startswith("PG_") and name != "PG_VERSION"
    if in_tablespace != (tablespace is not None):
        return None
    if match := _RELATION.fullmatch(name):
        spc = tablespace or (GLOBAL_TABLESPACE if match["glob"] else DEFAULT_TABLESPACE)
        db = int(match["db"] or match["spcdb"] or 0)
        fork = _FORKS[match["fork"]]
        return relation(spc, db, int(match["rel"]), fork, int(match["seg"] or 0))
    if match := _SLRU.fullmatch(name):
        return slru(_SLRUS[match[1]], int(match[2], 16))
    path = name if tablespace is None else f"pg_tblspc/{tablespace}/{name}"
    return SmallFileMember(path) if small_file_key(path) is not None else None
