"""What of a manifest is true of a directory that ends at an LSN, restored from a later state.

    LSN   ----- point ------ horizon ------ end ------ durable ----- point
    kept        yes          as it is       here       = end          no

Every read at or below the end finds in the bundles that are kept what it would find in all: a
bundle is left out only if each of its versions is newer. Those that are kept may have newer ones,
too, which no read takes.
"""

from formats.manifest import Manifest


def ending_at(manifest: Manifest, lsn: int) -> Manifest:
    """The state of the directory that ends at `lsn`, which must be readable in `manifest`'s."""
    ended = manifest.copy()
    ended.files = {
        name: record for name, record in manifest.files.items() if record.lsn_start <= lsn
    }
    ended.removed = {name: rows for name, rows in manifest.removed.items() if name in ended.files}
    ended.settled = manifest.settled & ended.files.keys()
    ended.uploaded = {
        name: epoch for name, epoch in manifest.uploaded.items() if name in ended.files
    }
    ended.points = {name: point for name, point in manifest.points.items() if point.lsn <= lsn}
    ended.leases = {name: lease for name, lease in manifest.leases.items() if lease.lsn <= lsn}
    ended.timelines = [switch for switch in manifest.timelines if switch.lsn <= lsn]
    ended.durable_lsn = min(manifest.durable_lsn, lsn)
    ended.horizon_lsn = min(manifest.horizon_lsn, lsn)
    ended.ends_at_lsn = lsn
    return ended
