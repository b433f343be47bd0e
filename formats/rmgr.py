"""Resource managers and their opcodes in each major version, named as pg_waldump names them.

A record's resource manager id says which part of PostgreSQL redoes it; the high four bits of its
info byte are that manager's opcode (Transaction uses three of them, the fourth is a flag). From 15
on, ids of 128 and above belong to extensions.
"""

from formats.postgres_versions import VERSIONS

XLOG, TRANSACTION, STORAGE, CLOG, DATABASE, TABLESPACE, MULTIXACT, RELMAP = range(8)
STANDBY, HEAP2, HEAP, BTREE, HASH, GIN, GIST, SEQUENCE, SPGIST, BRIN = range(8, 18)
COMMIT_TS, REPLICATION_ORIGIN, GENERIC, LOGICAL_MESSAGE = range(18, 22)

NAMES = (
    "XLOG", "Transaction", "Storage", "CLOG", "Database", "Tablespace", "MultiXact", "RelMap",
    "Standby", "Heap2", "Heap", "Btree", "Hash", "Gin", "Gist", "Sequence", "SPGist", "BRIN",
    "CommitTs", "ReplicationOrigin", "Generic", "LogicalMessage",
)  # fmt: skip
CUSTOM_MIN = 128

# Opcodes of 18. Index = opcode >> 4; "-" is one that is not in use.
_OPCODES: dict[int, str] = {
    XLOG: "CHECKPOINT_SHUTDOWN CHECKPOINT_ONLINE NOOP NEXTOID SWITCH BACKUP_END PARAMETER_CHANGE "
    "RESTORE_POINT FPW_CHANGE END_OF_RECOVERY FPI_FOR_HINT FPI - OVERWRITE_CONTRECORD "
    "CHECKPOINT_REDO",
    TRANSACTION: "COMMIT PREPARE ABORT COMMIT_PREPARED ABORT_PREPARED ASSIGNMENT INVALIDATION",
    STORAGE: "- CREATE TRUNCATE",
    CLOG: "ZEROPAGE TRUNCATE",
    DATABASE: "CREATE_FILE_COPY CREATE_WAL_LOG DROP",
    TABLESPACE: "CREATE DROP",
    MULTIXACT: "ZERO_OFF_PAGE ZERO_MEM_PAGE CREATE_ID TRUNCATE_ID",
    RELMAP: "UPDATE",
    STANDBY: "LOCK RUNNING_XACTS INVALIDATIONS",
    HEAP2: "REWRITE PRUNE_ON_ACCESS PRUNE_VACUUM_SCAN PRUNE_VACUUM_CLEANUP VISIBLE MULTI_INSERT "
    "LOCK_UPDATED NEW_CID - - - - - MULTI_INSERT+INIT",
    HEAP: "INSERT DELETE UPDATE TRUNCATE HOT_UPDATE HEAP_CONFIRM LOCK INPLACE "
    "INSERT+INIT - UPDATE+INIT - HOT_UPDATE+INIT",
    BTREE: "INSERT_LEAF INSERT_UPPER INSERT_META SPLIT_L SPLIT_R INSERT_POST DEDUP DELETE "
    "UNLINK_PAGE UNLINK_PAGE_META NEWROOT MARK_PAGE_HALFDEAD VACUUM REUSE_PAGE META_CLEANUP",
    HASH: "INIT_META_PAGE INIT_BITMAP_PAGE INSERT ADD_OVFL_PAGE SPLIT_ALLOCATE_PAGE SPLIT_PAGE "
    "SPLIT_COMPLETE MOVE_PAGE_CONTENTS SQUEEZE_PAGE DELETE SPLIT_CLEANUP UPDATE_META_PAGE "
    "VACUUM_ONE_PAGE",
    GIN: "- CREATE_PTREE INSERT SPLIT VACUUM_PAGE DELETE_PAGE UPDATE_META_PAGE INSERT_LISTPAGE "
    "DELETE_LISTPAGE VACUUM_DATA_LEAF_PAGE",
    GIST: "PAGE_UPDATE DELETE PAGE_REUSE PAGE_SPLIT - - PAGE_DELETE ASSIGN_LSN",
    SEQUENCE: "LOG",
    SPGIST: "- ADD_LEAF MOVE_LEAFS ADD_NODE SPLIT_TUPLE PICKSPLIT VACUUM_LEAF VACUUM_ROOT "
    "VACUUM_REDIRECT",
    BRIN: "CREATE_INDEX INSERT UPDATE SAMEPAGE_UPDATE REVMAP_EXTEND DESUMMARIZE - - "
    "- INSERT+INIT UPDATE+INIT",
    COMMIT_TS: "ZEROPAGE TRUNCATE",
    REPLICATION_ORIGIN: "SET DROP",
    GENERIC: " ".join(["Generic"] * 16),
    LOGICAL_MESSAGE: "MESSAGE",
}

# What older versions call otherwise: first version that no longer does, manager, opcode, name.
_UNTIL = (
    (17, XLOG, 0xE0, ""),
    (17, HEAP2, 0x10, "PRUNE"),
    (17, HEAP2, 0x20, "VACUUM"),
    (17, HEAP2, 0x30, "FREEZE_PAGE"),
    (15, DATABASE, 0x00, "CREATE"),
    (15, DATABASE, 0x10, "DROP"),
    (15, DATABASE, 0x20, ""),
)


def _table(version: int) -> dict[tuple[int, int], str]:
    table = {
        (rmgr, index << 4): name
        for rmgr, names in _OPCODES.items()
        for index, name in enumerate(names.split())
        if name != "-"
    }
    for until, rmgr, opcode, name in _UNTIL:
        if version < until:
            table[rmgr, opcode] = name
    return {key: name for key, name in table.items() if name}


OPCODES = {version: _table(version) for version in VERSIONS}


def opcode(rmgr: int, info: int) -> int:
    """The opcode in an info byte."""
    return info & (0x70 if rmgr == TRANSACTION else 0xF0)


def is_valid(version: int, rmgr: int) -> bool:
    """Whether PostgreSQL would take a record of this resource manager at all."""
    return rmgr < len(NAMES) or CUSTOM_MIN <= rmgr <= 255 and version >= 15


def name(rmgr: int) -> str:
    return NAMES[rmgr] if rmgr < len(NAMES) else f"custom{rmgr:03d}"


def opcode_name(version: int, rmgr: int, info: int) -> str:
    code = opcode(rmgr, info)
    return OPCODES[version].get((rmgr, code), f"UNKNOWN ({code:x})")


def show(version: int, rmgr: int, info: int) -> str:
    """A record's kind in words, such as "Heap/INSERT+INIT"."""
    return f"{name(rmgr)}/{opcode_name(version, rmgr, info)}"
