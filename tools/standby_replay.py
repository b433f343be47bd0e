"""A standby as an oracle at many LSNs, one after another, each WAL byte replayed once.

tools/oracle_standby.py recovers to one LSN and shuts down; to go on from there PostgreSQL replays
from its last restartpoint again, and over pages that are newer already its redo is not exact (bits
of visibility maps get lost, for one). This standby never restarts. It gets its WAL through
restore_command from a directory in which there is no more than it shall replay: whole segments, and
the one with the target cut off behind a record, zeros from there on. It replays up to the cut and
asks for that segment again and again. At each cut:

- `pg_last_wal_replay_lsn()` must be the cut, which is the LSN to ask a page server for;
- CHECKPOINT makes a restartpoint, and that alone writes all pages, SLRUs and prepared transactions
  to files. It is silently skipped where no checkpoint record was replayed since the last one: there
  must be one between the targets, and the log must show that the restartpoint completed.

Then nothing writes until the next cut: there are no other sessions, and no autovacuum in recovery.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg

from formats import lsn, wal_page
from tools.oracle_standby import NoOracle
from tools.postgres import Workspace
from tools.wal_positions import SEGMENT_BYTES

REPLAY_SECONDS_MAX = 300.0
TIMELINE = 1
_COMPLETE = "restartpoint complete"


class ReplayingStandby:
    """A standby over a copy of a stopped primary, replaying what `wal_dir` has up to each cut."""

    def __init__(
        self,
        workspace: Workspace,
        major: int,
        data_dir: Path,
        wal_dir: Path,
        settings: Mapping[str, str],
        lsn_from: int,
    ) -> None:
        """`data_dir` becomes the standby's own; `settings` as the primary has them; `lsn_from` is
        where the WAL begins that it has not."""
        self._wal_dir = wal_dir
        self._archive = workspace.new_path("archive")
        self._archive.mkdir()
        self._next_segment = lsn_from // SEGMENT_BYTES
        (data_dir / "standby.signal").touch()
        self.server = workspace.server(
            major,
            data_dir,
            {
                **settings,
                "restore_command": f'cp "{self._archive}/%f" "%p"',
                "recovery_target_timeline": "current",
                "wal_retrieve_retry_interval": "20ms",
                "hot_standby": "on",
                "log_checkpoints": "on",
                "checkpoint_timeout": "1d",
                "max_wal_size": "1TB",
                "fsync": "off",
            },
        )

    def replay_to(self, cut: int) -> None:
        """Replay all records that end at or below `cut`, the end of one, above the last call's: the
        files are now the truth at that LSN. NoOracle if they cannot be."""
        self._offer(cut)
        if not self.server.running:
            self.server.start()
        self._wait_for(cut)
        before = self._restartpoints()
        self.server.sql("CHECKPOINT")
        if self._restartpoints() != before + 1:
            raise NoOracle(
                f"no restartpoint at {lsn.show(cut)}: pages may be missing from the standby's "
                f"files; there must be a checkpoint record between two targets\n"
                f"{self.server.log_tail()}"
            )

    def _offer(self, cut: int) -> None:
        """Put WAL up to `cut` into the archive; what was cut off there before is replaced."""
        last = (cut - 1) // SEGMENT_BYTES
        for number in range(self._next_segment, last + 1):
            name = wal_page.file_name(TIMELINE, number, SEGMENT_BYTES)
            content = (self._wal_dir / name).read_bytes()
            if number == last:
                kept = cut - number * SEGMENT_BYTES
                content = content[:kept].ljust(SEGMENT_BYTES, b"\0")
            temporary = self._archive / f"{name}.new"
            temporary.write_bytes(content)
            os.replace(temporary, self._archive / name)
        self._next_segment = last

    def _wait_for(self, cut: int) -> None:
        deadline = time.monotonic() + REPLAY_SECONDS_MAX
        replayed = None
        while time.monotonic() < deadline and self.server.running:
            try:
                with self.server.connect() as connection:
                    while time.monotonic() < deadline:
                        row = connection.execute("SELECT pg_last_wal_replay_lsn()").fetchone()
                        replayed = lsn.parse(row[0]) if row and row[0] else 0
                        if replayed >= cut:
                            break
                        time.sleep(0.02)
                break
            except psycopg.OperationalError:  # a replayed DROP may end sessions
                time.sleep(0.02)
        if replayed != cut:
            shown = "nothing" if replayed is None else lsn.show(replayed)
            raise NoOracle(
                f"replayed up to {shown} instead of {lsn.show(cut)}:\n{self.server.log_tail()}"
            )

    def _restartpoints(self) -> int:
        return self.server.log_path.read_text(errors="replace").count(_COMPLETE)
