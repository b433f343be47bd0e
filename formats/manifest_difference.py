"""The records that bring one manifest to another that came of it.

So a bucket follows a directory by what is true there now, whatever entries led to it and whether
they are still there: the local manifest may have been compacted meanwhile.
"""

from formats.manifest import Manifest
from formats.manifest_record import (
    BundleSettled,
    EndsAt,
    FileRemoved,
    LayersRemoved,
    LeaseDropped,
    LeaseSet,
    Opened,
    PointDropped,
    PointSet,
    Progress,
    Record,
)

LSNS = ("durable_lsn", "horizon_lsn", "backup_start_lsn", "backup_end_lsn")


def difference(bucket: Manifest, local: Manifest) -> list[Record]:
    """What, applied to `bucket`, gives `local`: all but the serial, and where files are uploaded.

    ValueError if no records do: `local` did not come of `bucket`. What differs in their files is
    all that is looked at one by one, so the records are few however long history is.
    """
    records: list[Record] = []
    if bucket.identity != local.identity:
        if bucket.identity is not None or local.identity is None:
            raise ValueError(f"the data of {bucket.identity} became that of {local.identity}")
        records.append(local.identity)
    if bucket.run != local.run:
        if local.run < bucket.run:
            raise ValueError(f"run {bucket.run} became run {local.run}")
        records.append(Opened(local.run))
    records += _of_files(bucket, local)
    if local.timelines[: len(bucket.timelines)] != bucket.timelines:
        raise ValueError(f"timelines {bucket.timelines} became {local.timelines}")
    records += local.timelines[len(bucket.timelines) :]
    records += _of_retained(bucket, local)
    records += _of_lsns(bucket, local)
    if bucket.ends_at_lsn != local.ends_at_lsn:
        if local.ends_at_lsn is None:
            raise ValueError(f"what ended at LSN {bucket.ends_at_lsn} goes on")
        records.append(EndsAt(local.ends_at_lsn))
    return records


def _of_lsns(bucket: Manifest, local: Manifest) -> list[Record]:
    """None goes back, but for a timeline that was cut off (invariant 11): a directory that is
    behind is an older one."""
    moved = {}
    for name in LSNS:
        before, after = getattr(bucket, name), getattr(local, name)
        if after < before and local.timelines == bucket.timelines:
            raise ValueError(f"{name} {before} became {after}")
        if after != before:
            moved[name] = after
    return [Progress(**moved)] if moved else []


def _of_files(bucket: Manifest, local: Manifest) -> list[Record]:
    """Those that are gone, those that are new, and what counts no longer of those that are."""
    records: list[Record] = []
    records += (FileRemoved(name.text) for name in sorted(bucket.files.keys() - local.files.keys()))
    for name in sorted(bucket.files.keys() & local.files.keys()):
        if bucket.files[name] != local.files[name]:
            raise ValueError(f"{bucket.files[name]} became {local.files[name]}")
    records += (local.files[name] for name in sorted(local.files.keys() - bucket.files.keys()))
    for name in sorted({*bucket.removed, *local.removed} & local.files.keys()):
        before, rows = bucket.removed.get(name, b""), local.removed.get(name, b"")
        if bucket.removed.get(name) != local.removed.get(name):
            bits = int.from_bytes(before, "little")
            if len(rows) < len(before) or bits & ~int.from_bytes(rows, "little"):
                raise ValueError(f"layers of {name.text} came back")
            records.append(LayersRemoved(name.text, rows))
    for name in sorted((bucket.settled ^ local.settled) & local.files.keys()):
        if name in bucket.settled:
            raise ValueError(f"{name.text} is settled no more")
        records.append(BundleSettled(name.text))
    return records


def _of_retained(bucket: Manifest, local: Manifest) -> list[Record]:
    """Of points and leases: a name that stands for another LSN is dropped and set anew."""
    records: list[Record] = []
    for name in sorted(bucket.points):
        if local.points.get(name) != bucket.points[name]:
            records.append(PointDropped(name))
    for name in sorted(local.points):
        if local.points[name] != bucket.points.get(name):
            records.append(PointSet(name, local.points[name].lsn))
    for name, lease in sorted(bucket.leases.items()):
        if name not in local.leases or local.leases[name].lsn != lease.lsn:
            records.append(LeaseDropped(name))
    for name, lease in sorted(local.leases.items()):
        if lease != bucket.leases.get(name):
            records.append(LeaseSet(name, lease.lsn, lease.until_seconds))
    return records
