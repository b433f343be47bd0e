"""Whose pages a directory keeps, under which names, and which of them.

Written into the manifest when the base backup is complete, and kept for the directory's life: an
open that wants something else is refused.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from engine.backup_identity import BackupIdentity
from engine.errors import DirectoryRefusedError
from formats.manifest_record import Identity


@dataclass(frozen=True)
class Ids:
    """Names that clients use, derived once from the cluster (design invariant 11)."""

    tenant: str
    timeline: str
    system_identifier: int
    pg_version: int


def derive_ids(identity: BackupIdentity) -> Ids:
    """The ids of a cluster that is being backed up."""

    def digest(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    system = identity.system_identifier
    return Ids(
        digest(f"pageserver tenant {system}"),
        digest(f"pageserver timeline {system} {identity.timeline}"),
        system,
        identity.pg_version_num,
    )


@dataclass(frozen=True)
class Wanted:
    """What the caller says of a directory; None: whatever it is, or the default for a new one."""

    chunks: str | None = None
    tenant: str | None = None
    timeline: str | None = None

    def ids(self, derived: Ids) -> Ids:
        """The ids of a new directory."""
        return replace(
            derived,
            tenant=self.tenant or derived.tenant,
            timeline=self.timeline or derived.timeline,
        )

    def check(self, identity: Identity, directory: Path) -> None:
        """DirectoryRefusedError if an existing directory is another one."""
        for name in ("chunks", "tenant", "timeline"):
            wanted, found = getattr(self, name), getattr(identity, name)
            if wanted is not None and wanted != found:
                raise DirectoryRefusedError(
                    f"{directory} was begun with {name} {found}, not {wanted}: that is kept for "
                    f"its life; leave --{name} away, or take another directory"
                )
