"""Oracle A over one workload: the bounded form of `make coverage`."""

import pytest

from formats import rmgr
from tests.fixtures.postgres_servers import require_postgres
from tools import workloads
from tools.postgres import Workspace
from tools.redo_coverage import kinds_of, run_workload

SEEN = {
    "transactions": (
        "Heap/INSERT", "Heap/UPDATE", "Heap/HOT_UPDATE", "Heap/DELETE", "Heap/LOCK",
        "Heap/HEAP_CONFIRM", "Heap/INPLACE", "Heap2/VISIBLE", "Heap2/MULTI_INSERT",
        "Btree/INSERT_LEAF", "Btree/NEWROOT", "Btree/SPLIT_R", "Btree/VACUUM",
    ),
    "databases and tablespaces": ("Heap/INSERT", "Heap/UPDATE", "Heap/DELETE", "Heap2/VISIBLE"),
}  # fmt: skip
RECORDS = {
    "transactions": ("Transaction/PREPARE", "Transaction/COMMIT_PREPARED", "RelMap/UPDATE"),
    "databases and tablespaces": ("Database/DROP", "Tablespace/CREATE", "Tablespace/DROP"),
}


@pytest.mark.parametrize(
    ("major", "name"), [(14, "databases and tablespaces"), (18, "transactions")]
)
def test_no_page_differs(workspace: Workspace, major: int, name: str) -> None:
    require_postgres(major)
    (workload,) = (load for load in workloads.ALL if load.name == name)
    outcome = run_workload(workspace, major, workload, seed=1, seconds=1)
    assert outcome.report.differences == []
    assert not outcome.skipped
    kinds = kinds_of(major, [outcome])
    assert [kind for kind in SEEN[name] if not kinds[kind]["compared"]] == []
    assert [kind for kind in RECORDS[name] if not kinds[kind]["records"]] == []
    assert {rmgr.show(major, *kind) for kind in rmgr.OPCODES[major]} <= set(kinds)
