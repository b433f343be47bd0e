"""A standby as an oracle: what PostgreSQL's own redo makes of the WAL up to an LSN.

A copy of a base backup replays WAL and shuts down at a recovery target. Three things make its files
the truth at one LSN:

- `recovery_target_inclusive=off`, so that nothing that *starts* at the target is applied. The log
  names the record before which recovery stopped: the boundary LSN, which is the one to ask for.
- Shutting down at a target writes dirty pages only if a checkpoint record was replayed since the
  last restartpoint, and says nothing when it does not. So there must have been a CHECKPOINT between
  the base backup and the target, no restartpoint may come before the end, and the log must
  show exactly one.
- No promotion: it would trim SLRUs.

The copy gets its own tablespaces; otherwise replay would write into the primary's.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from formats import lsn
from tools.postgres import Server, Workspace

RECOVERY_SECONDS_MAX = 300.0

_BOUNDARY = re.compile(r'recovery stopping before WAL location \(LSN\) "([0-9A-F]+/[0-9A-F]+)"')
_RESTARTPOINT = re.compile(r"restartpoint starting: (.*)")


class NoOracle(Exception):
    """The standby's files are not the truth at one LSN; the text says why, and what to do."""


@dataclass(frozen=True)
class Standby:
    """The files of a standby that is shut down, and the LSN whose truth they are."""

    data_dir: Path
    lsn_boundary: int


def recover(
    workspace: Workspace,
    major: int,
    base_backup: Path,
    wal_dir: Path,
    lsn_target: int,
    *,
    wal_log_hints: bool = False,
) -> Standby:
    """Replay the WAL of `wal_dir` (segment files) over a copy of `base_backup`.

    Records that start at or behind `lsn_target` are not applied. The WAL must hold at least one.
    `wal_log_hints` must be as on the primary: without checksums, redo of heap records moves pd_lsn
    by the standby's own setting (XLogHintBitIsNeeded, xlog.h).
    """
    data_dir = workspace.copy(base_backup, "standby")
    _give_own_tablespaces(data_dir)
    (data_dir / "recovery.signal").touch()
    server = workspace.server(
        major,
        data_dir,
        {
            "restore_command": f'cp "{wal_dir}/%f" "%p"',
            "recovery_target_lsn": lsn.show(lsn_target),
            "recovery_target_inclusive": "off",
            "recovery_target_action": "shutdown",
            "recovery_target_timeline": "current",
            "hot_standby": "off",
            "wal_log_hints": "on" if wal_log_hints else "off",
            "max_prepared_transactions": "100",
            "allow_in_place_tablespaces": "on",
            "log_checkpoints": "on",
            "checkpoint_timeout": "1d",
            "max_wal_size": "1TB",
            "fsync": "off",
        },
    )
    process = server.launch()
    try:
        process.wait(RECOVERY_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        server.kill()
        raise NoOracle(
            f"no end of recovery after {RECOVERY_SECONDS_MAX:.0f} s:\n{server.log_tail()}"
        ) from None
    return Standby(data_dir, _boundary(server))


def _boundary(server: Server) -> int:
    """The LSN before which the log says that recovery stopped; NoOracle if the files are not it."""
    log = server.log_path.read_text(errors="replace")
    boundary = _BOUNDARY.search(log)
    if boundary is None:
        raise NoOracle(f"recovery did not reach its target:\n{server.log_tail()}")
    restartpoints = _RESTARTPOINT.findall(log)
    if len(restartpoints) != 1 or "shutdown" not in restartpoints[0]:
        raise NoOracle(
            "pages may be missing from the standby's files: expected one restartpoint, "
            f"at the shutdown, found {restartpoints}; run CHECKPOINT between the base "
            "backup and the target"
        )
    if "restartpoint complete" not in log:
        raise NoOracle(f"the standby's restartpoint did not complete:\n{server.log_tail()}")
    return lsn.parse(boundary[1])


def _give_own_tablespaces(data_dir: Path) -> None:
    for link in (data_dir / "pg_tblspc").iterdir():
        if link.is_symlink():
            copy = data_dir.with_name(f"{data_dir.name}.tablespace.{link.name}")
            subprocess.run(
                ["cp", "-a", "--reflink=auto", f"{link.readlink()}", str(copy)], check=True
            )
            link.unlink()
            link.symlink_to(copy)
