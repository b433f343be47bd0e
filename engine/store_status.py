"""What the engine says of itself: its part of `pageserver status`."""

import contextlib

from engine.cluster_identity import Ids
from engine.journal import Journal
from engine.manifest_log import ManifestLog
from engine.version_store import VersionStore
from formats import timestamp
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn

NEVER = (1 << 64) - 1  # the horizon while nothing can be read


def describe(
    ids: Ids | None,
    manifest: ManifestLog | None,
    journal: Journal | None,
    versions: VersionStore,
) -> dict[str, object]:
    """LSNs as text, None where there is none; `debt_bytes` is what no compaction has merged."""
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
        "remote_lsn": None,
        "horizon_lsn": _text(versions.horizon_lsn),
        "horizon_time": _time_at(versions, versions.horizon_lsn),
        "commit_time": _time_at(versions, ready),
        "lag_bytes": max(0, received - ready) if ready else 0,
        "layer_count": len(files),
        "layer_bytes": sum(file.bytes_total for file in files),
        "journal_bytes": received - journal.start_lsn if journal is not None else 0,
        "debt_bytes": sum(file.bytes_total for file in files if file.name.startswith("l0")),
        "counters": _counters(versions),
    }


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
