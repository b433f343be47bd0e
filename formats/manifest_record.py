"""The records of the manifest: each says of one thing what is true from its entry on.

docs/format.md has them as the file does; formats/manifest.py is the state that they lead to.
"""

from dataclasses import dataclass
from typing import ClassVar, get_args

BLOCK_BYTES = 8192
STRIPE_BLOCKS = 16384


@dataclass(frozen=True)
class Identity:
    """Written once, first: whose data this is and how it is laid out."""

    tag: ClassVar[str] = "identity"
    tenant: str
    timeline: str
    system_identifier: int
    postgres_version: int  # as server_version_num
    wal_segment_bytes: int
    chunks: str = "all"  # which chunks are held, as `--chunks` says it
    block_bytes: int = BLOCK_BYTES
    stripe_blocks: int = STRIPE_BLOCKS


@dataclass(frozen=True)
class Opened:
    """The directory was opened for writing; no run number is used twice."""

    tag: ClassVar[str] = "opened"
    run: int


@dataclass(frozen=True)
class FileAdded:
    tag: ClassVar[str] = "file_added"
    name: str
    bytes_total: int
    lsn_start: int
    lsn_end: int
    footer_crc: int


@dataclass(frozen=True)
class FileRemoved:
    tag: ClassVar[str] = "file_removed"
    name: str


@dataclass(frozen=True)
class Progress:
    """LSNs that moved; None: as before."""

    tag: ClassVar[str] = "progress"
    durable_lsn: int | None = None
    horizon_lsn: int | None = None
    backup_start_lsn: int | None = None
    backup_end_lsn: int | None = None


@dataclass(frozen=True)
class TimelineSwitch:
    """The source went on as PostgreSQL timeline `timeline_number` from `lsn`."""

    tag: ClassVar[str] = "timeline_switch"
    timeline_number: int
    lsn: int


@dataclass(frozen=True)
class LayersRemoved:
    """Layers of a bundle that count no longer, besides those that were removed before.

    Bit i & 7 of byte i >> 3 of `rows`: row i of the bundle's layer directory. Missing bytes: zero.
    """

    tag: ClassVar[str] = "layers_removed"
    name: str
    rows: bytes


@dataclass(frozen=True)
class BundleSettled:
    """An L0 bundle is one no more: what counts of its layers are layers of their stripes.

    So are they left that no merge can take, as they are damaged, when all others are merged.
    """

    tag: ClassVar[str] = "bundle_settled"
    name: str


@dataclass(frozen=True)
class PointSet:
    """A named LSN that stays readable until it is dropped."""

    tag: ClassVar[str] = "point_set"
    name: str
    lsn: int


@dataclass(frozen=True)
class PointDropped:
    tag: ClassVar[str] = "point_dropped"
    name: str


@dataclass(frozen=True)
class LeaseSet:
    """A named LSN that stays readable until a time; setting it again sets another time."""

    tag: ClassVar[str] = "lease_set"
    name: str
    lsn: int
    until_seconds: int  # since 1970


@dataclass(frozen=True)
class LeaseDropped:
    tag: ClassVar[str] = "lease_dropped"
    name: str


@dataclass(frozen=True)
class FileUploaded:
    """A bundle is in the bucket too, where the writer of this epoch has put it."""

    tag: ClassVar[str] = "file_uploaded"
    name: str
    epoch: int


@dataclass(frozen=True)
class EndsAt:
    """Restored as of `lsn`: nothing above it is here, and nothing follows."""

    tag: ClassVar[str] = "ends_at"
    lsn: int


Record = (
    Identity
    | Opened
    | FileAdded
    | FileRemoved
    | LayersRemoved
    | BundleSettled
    | Progress
    | TimelineSwitch
    | PointSet
    | PointDropped
    | LeaseSet
    | LeaseDropped
    | FileUploaded
    | EndsAt
)
RECORDS: dict[str, type[Record]] = {kind.tag: kind for kind in get_args(Record)}
