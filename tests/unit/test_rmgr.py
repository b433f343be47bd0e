"""Names of record kinds; that they equal pg_waldump's is tested on real WAL in integration."""

import pytest

from formats import rmgr
from formats.postgres_versions import VERSIONS


@pytest.mark.parametrize(
    ("version", "manager", "info", "text"),
    [
        (18, rmgr.HEAP, 0x00, "Heap/INSERT"),
        (18, rmgr.HEAP, 0x80, "Heap/INSERT+INIT"),
        (18, rmgr.HEAP, 0xC2, "Heap/HOT_UPDATE+INIT"),
        (18, rmgr.HEAP2, 0xD0, "Heap2/MULTI_INSERT+INIT"),
        (18, rmgr.HEAP2, 0x10, "Heap2/PRUNE_ON_ACCESS"),
        (17, rmgr.HEAP2, 0x30, "Heap2/PRUNE_VACUUM_CLEANUP"),
        (16, rmgr.HEAP2, 0x10, "Heap2/PRUNE"),
        (14, rmgr.HEAP2, 0x30, "Heap2/FREEZE_PAGE"),
        (18, rmgr.TRANSACTION, 0x80, "Transaction/COMMIT"),
        (18, rmgr.TRANSACTION, 0xE0, "Transaction/INVALIDATION"),
        (18, rmgr.XLOG, 0xE0, "XLOG/CHECKPOINT_REDO"),
        (16, rmgr.XLOG, 0xE0, "XLOG/UNKNOWN (e0)"),
        (18, rmgr.XLOG, 0xD0, "XLOG/OVERWRITE_CONTRECORD"),
        (18, rmgr.XLOG, 0xC0, "XLOG/UNKNOWN (c0)"),
        (14, rmgr.DATABASE, 0x10, "Database/DROP"),
        (15, rmgr.DATABASE, 0x10, "Database/CREATE_WAL_LOG"),
        (14, rmgr.DATABASE, 0x20, "Database/UNKNOWN (20)"),
        (18, rmgr.GENERIC, 0x30, "Generic/Generic"),
        (18, rmgr.GIN, 0x90, "Gin/VACUUM_DATA_LEAF_PAGE"),
        (18, rmgr.BRIN, 0xA0, "BRIN/UPDATE+INIT"),
        (18, rmgr.GIST, 0x60, "Gist/PAGE_DELETE"),
        (18, rmgr.LOGICAL_MESSAGE, 0x00, "LogicalMessage/MESSAGE"),
        (18, 200, 0x10, "custom200/UNKNOWN (10)"),
    ],
)
def test_names(version: int, manager: int, info: int, text: str) -> None:
    assert rmgr.show(version, manager, info) == text


def test_which_managers_exist() -> None:
    assert [m for m in range(256) if not rmgr.is_valid(18, m)] == list(range(22, 128))
    assert [m for m in range(256) if rmgr.is_valid(14, m)] == list(range(22))


def test_every_manager_has_a_name_and_opcodes() -> None:
    assert len(rmgr.NAMES) - 1 == rmgr.LOGICAL_MESSAGE
    for version in VERSIONS:
        assert {manager for manager, _ in rmgr.OPCODES[version]} == set(range(22))
