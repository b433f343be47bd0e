"""What the engine says of itself: its part of `pageserver status`."""

import contextlib
from collections.abc import Sequence
from itertools import accumulate

from engine.cluster_identity import Ids
from engine.compactor import Compactor
from engine.journal import Journal
from engine.layer_store import LayerStore
from engine.manifest_log import ManifestLog
from engine.remote_wal import RemoteWal
from engine.version_store import VersionStore
from formats import timestamp
from formats.chunk import ChunkKey
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn

NEVER = (1 << 64) - 1  # the horizon while nothing can be read


def describe(
    ids: Ids | None,
    manifest: ManifestLog | None,
    journal: Journal | None,
    versions: VersionStore,
    remote: RemoteWal,
) -> dict[str, object]:
    """LSNs as text, None where there is none."""
    files = manifest.state.files.values() if manifest is not None else ()
    received = journal.received_lsn if journal is not None else 0
    flushed = journal.flushed_lsn if journal is not None else 0
    ready = versions.ready_lsn
    return {
        "tenant": ids.tenant if ids is not None else None,
        "timeline": ids.timeline if ids is not None else None,
        "received_lsn": _text(received),
        "flushed_lsn": _text(flushed),
        "ready_lsn": _text(ready),
        "durable_lsn": _text(versions.durable_lsn),
        "remote_lsn": _text(remote.lsn),
        "horizon_lsn": _text(versions.horizon_lsn),
        "horizon_time": _time_at(versions, versions.horizon_lsn),
        "commit_time": _time_at(versions, ready),
        "lag_bytes": max(0, received - ready) if ready else 0,
        "layer_count": len(files),
        "layer_bytes": sum(file.bytes_total for file in files),
        "journal_bytes": received - journal.start_lsn if journal is not None else 0,
        "counters": _counters(versions),
    }


def describe_compaction(
    compactor: Compactor | None, layers: LayerStore | None
) -> dict[str, object]:
    """What compaction does, has to do and has done since the start; None: not known yet."""
    if compactor is None or layers is None:
        return {"compaction": None}
    space, policy, l0 = compactor.space, compactor.policy, layers.map.l0
    files = layers.state.files
    flushed = layers.bytes_written - compactor.bytes_written
    mean, p99, most = visits(layers.map.visits)
    return {
        "compaction": compactor.state,
        "l0_count": len(l0),
        "l0_slowed_count": policy.l0_bundles_behind,
        "l0_wait_count": policy.l0_bundles_wait,
        "l0_bytes": sum(
            file.bytes_total for each in l0 if (file := files.get(each.reader.name)) is not None
        ),
        "debt_bytes": None if space is None else space.debt_bytes,
        "debt_version_count": None if space is None else space.debt_versions,
        "image_wanted_count": len(compactor.wanting),
        "damaged_count": len(compactor.damaged),
        "damaged": _first_damaged(compactor),
        "flush_bytes": flushed,
        "compaction_bytes": compactor.bytes_written,
        "write_amplification": round(compactor.bytes_written / flushed, 2) if flushed else None,
        "layers_read_mean": mean,
        "layers_read_p99": p99,
        "layers_read_max": most,
        "held_bytes": None if space is None else space.held_bytes,
    }


def visits(histogram: Sequence[int]) -> tuple[float | None, int | None, int | None]:
    """Mean, p99 and most of what histogram[n] requests visited n of; None where there is none."""
    requests = sum(histogram)
    if not requests:
        return None, None, None
    mean = sum(n * count for n, count in enumerate(histogram)) / requests
    most = max(n for n, count in enumerate(histogram) if count)
    p99 = next(n for n, below in enumerate(accumulate(histogram)) if 100 * below >= 99 * requests)
    return round(mean, 2), p99, most


def _first_damaged(compactor: Compactor) -> str | None:
    for (key, stripe), reason in list(compactor.damaged.items())[:1]:
        return f"stripe {stripe} of {ChunkKey.unpack(key).name}: {reason}"
    return None


def _counters(versions: VersionStore) -> dict[str, int]:
    return {
        **versions.counters,
        "cache_hits": versions.cache.hits,
        "cache_bases": versions.cache.bases,
        "cache_misses": versions.cache.misses,
        "records": versions.ingest.records,
        "page_images": versions.ingest.images,
        "unreadable_versions": versions.ingest.unreadable,
    }


def _time_at(versions: VersionStore, lsn: int) -> str | None:
    """Of the newest commit in it; what damage says is for those who ask for the time alone."""
    if not 0 < lsn < NEVER:
        return None
    with contextlib.suppress(CorruptionError):
        time = versions.commit_times.time_at(lsn)
        return None if time is None else timestamp.show(time)
    return None


def _text(lsn: int) -> str | None:
    return show_lsn(lsn) if 0 < lsn < NEVER else None
