"""Why a kind of record is compared nowhere, or not in some versions: facts about PostgreSQL.

Two tables. WITHOUT_PAGES names kinds that change no block of a relation, or carry a block only as
an image that is taken as it is: there is nothing for oracle A to compare, and the table says who
judges them. ZEROS names kinds that redo a page and that a run has not compared, with the reason
and the versions it holds for. A kind at zero that is in neither fails the document's test.
"""

from formats.postgres_versions import VERSIONS

ALWAYS = frozenset(VERSIONS)

PAGES_OF_FILES = "oracle B: SLRU pages"
RELATIONS = "oracle B: which relations exist, their sizes and all their pages"
SMALL_FILES = "oracle B: relation maps, two-phase files and other small files"
NOTHING = "nobody: it changes nothing that is kept"
CONTROL = "oracle B: it brings the control file forward, no page"
CONFLICT = "nobody: it makes hot standbys cancel queries, and changes nothing"
ITS_IMAGE = "oracle B: the record is the page's image, taken as it is; nothing is redone"

WITHOUT_PAGES: dict[str, str] = {
    "XLOG/CHECKPOINT_SHUTDOWN": CONTROL,
    "XLOG/CHECKPOINT_ONLINE": CONTROL,
    "XLOG/NOOP": NOTHING,
    "XLOG/NEXTOID": NOTHING,
    "XLOG/SWITCH": NOTHING,
    "XLOG/BACKUP_END": NOTHING,
    "XLOG/PARAMETER_CHANGE": CONTROL,
    "XLOG/RESTORE_POINT": NOTHING,
    "XLOG/FPW_CHANGE": NOTHING,
    "XLOG/END_OF_RECOVERY": "nobody: it says which timeline goes on, and changes no file",
    "XLOG/OVERWRITE_CONTRECORD": "the WAL reader, which checks it; it changes nothing",
    "XLOG/CHECKPOINT_REDO": NOTHING,
    "XLOG/FPI_FOR_HINT": ITS_IMAGE,
    "XLOG/FPI": ITS_IMAGE,
    "Transaction/COMMIT": f"{PAGES_OF_FILES}; dropped relations",
    "Transaction/PREPARE": SMALL_FILES,
    "Transaction/ABORT": f"{PAGES_OF_FILES}; dropped relations",
    "Transaction/COMMIT_PREPARED": f"{PAGES_OF_FILES}; two-phase files, dropped relations",
    "Transaction/ABORT_PREPARED": f"{PAGES_OF_FILES}; two-phase files, dropped relations",
    "Transaction/ASSIGNMENT": NOTHING,
    "Transaction/INVALIDATION": NOTHING,
    "Storage/CREATE": RELATIONS,
    "Storage/TRUNCATE": RELATIONS,
    "CLOG/ZEROPAGE": PAGES_OF_FILES,
    "CLOG/TRUNCATE": PAGES_OF_FILES,
    "Database/CREATE": RELATIONS,
    "Database/CREATE_FILE_COPY": RELATIONS,
    "Database/CREATE_WAL_LOG": SMALL_FILES,
    "Database/DROP": RELATIONS,
    "Tablespace/CREATE": SMALL_FILES,
    "Tablespace/DROP": SMALL_FILES,
    "MultiXact/ZERO_OFF_PAGE": PAGES_OF_FILES,
    "MultiXact/ZERO_MEM_PAGE": PAGES_OF_FILES,
    "MultiXact/CREATE_ID": PAGES_OF_FILES,
    "MultiXact/TRUNCATE_ID": PAGES_OF_FILES,
    "RelMap/UPDATE": SMALL_FILES,
    "Standby/LOCK": CONFLICT,
    "Standby/RUNNING_XACTS": NOTHING,
    "Standby/INVALIDATIONS": NOTHING,
    "Heap2/REWRITE": "nobody: it writes mapping files of logical decoding, which are not kept",
    "Heap2/NEW_CID": "nobody: it is for logical decoding, and changes nothing",
    "Heap/TRUNCATE": "nobody: it is for logical decoding; the files go by other records",
    "Btree/REUSE_PAGE": CONFLICT,
    "Gist/PAGE_REUSE": CONFLICT,
    "Gist/ASSIGN_LSN": "nobody: it takes an LSN, and changes nothing",
    "CommitTs/ZEROPAGE": PAGES_OF_FILES,
    "CommitTs/TRUNCATE": PAGES_OF_FILES,
    "ReplicationOrigin/SET": SMALL_FILES,
    "ReplicationOrigin/DROP": SMALL_FILES,
    "LogicalMessage/MESSAGE": NOTHING,
}

ZEROS: dict[str, tuple[frozenset[int], str]] = {
    "Heap/HOT_UPDATE+INIT": (
        ALWAYS,
        "never written: a page is initialised for its only tuple, and a HOT update leaves the old "
        "tuple beside the new one (heapam.c, log_heap_update)",
    ),
    "Hash/SPLIT_PAGE": (
        ALWAYS,
        "always comes with an image, REGBUF_FORCE_IMAGE (hashpage.c, log_split_page)",
    ),
    "Gin/VACUUM_PAGE": (
        ALWAYS,
        "always comes with an image, REGBUF_FORCE_IMAGE (ginvacuum.c, xlogVacuumPage)",
    ),
}

UNSEEN: dict[str, str] = {
    "XLOG/NOOP": "no code of PostgreSQL writes it",
    "XLOG/FPW_CHANGE": "only when full_page_writes is changed: without it pages lack the images "
    "that oracle A starts from",
    "XLOG/END_OF_RECOVERY": "a promoted standby writes it, once",
    "XLOG/OVERWRITE_CONTRECORD": "only after a crash that cut off a record at a page's end",
    "CLOG/TRUNCATE": "only when a segment of pg_xact, 1,048,576 transactions, has become old",
    "CommitTs/TRUNCATE": "only when a segment of pg_commit_ts, 26,208 transactions, has become old",
    "Gist/ASSIGN_LSN": "only for relations that skip WAL, with wal_level = minimal, which is "
    "refused here (gistutil.c, gistGetFakeLSN)",
}
"""Kinds without pages that a run need not have seen, and why."""
