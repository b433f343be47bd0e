"""A server that begins on an empty directory with what a bucket has: nothing but the manifest and
the journal comes, layers are read from there (engine/lazy_storage.py).

    bucket's state ──> its next epoch is taken ──> state, which stands still now ──> D/

The epoch comes first: whoever wrote there until now can append nothing more, so what is restored is
all that was ever acknowledged. The uploader of this server then takes an epoch of its own, as the
directory descends from just this state.
"""

import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine import cluster_identity
from engine.storage import Storage
from server.backup.bucket_manifest import GRACE_SECONDS, BucketManifest, OvertakenError
from server.backup.fetch import patiently
from server.backup.object_store import ObjectStore
from server.backup.restore import PARALLELISM, Progress, boottime, restore
from server.backup.restore_target import Wanted, read_mark, refuse_others

ANY_IDENTITY = cluster_identity.Wanted()
_log = logging.getLogger("pageserver.backup")


def is_empty(storage: Storage, directory: Path) -> bool:
    """Whether there is no page server's data here, but perhaps the beginning of a restore."""
    if storage.exists(directory / "manifest"):
        return False
    if read_mark(storage, directory) is not None:
        return True
    layers = directory / "layers"
    has_layers = storage.exists(layers) and storage.list(layers)
    return not has_layers and not storage.exists(directory / "journal")


def begin_from_bucket(
    store: ObjectStore,
    directory: Path,
    storage: Storage,
    url: str,
    *,
    grace_seconds: float = GRACE_SECONDS,
    wanted: cluster_identity.Wanted = ANY_IDENTITY,
    check: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Make an empty directory one whose layers are in the bucket; False, and nothing was done, if
    the bucket has no backup. `grace_seconds`: for so long names stay that somebody may still know.
    `wanted`: what the backup must be of. `check(nonce)` raises RefusedError if the store cannot
    keep two writers apart.

    RestoreRefusedError, DirectoryRefusedError, StoreError, CorruptionError: it cannot be, now or
    ever.
    """
    with ThreadPoolExecutor(PARALLELISM, "bucket-manifest") as pool:
        bucket = BucketManifest(store, boottime, grace_seconds=grace_seconds, in_parallel=pool.map)
        identity = patiently(bucket.read, sleep).manifest.identity
        if identity is None:
            return False
        wanted.check(identity, directory)  # before anybody is fenced off
        refuse_others(storage, directory, Wanted(url, lazy=True))
        nonce = secrets.token_hex(16)
        if check is not None:
            patiently(lambda: check(nonce), sleep)
        epoch = _take_epoch(bucket, nonce, sleep)
        _log.info("the bucket at %s is ours from epoch %d on", url, epoch)
        restored = restore(
            store, directory, storage, url, lazy=True, progress=progress, sleep=sleep, bucket=bucket
        )
    if restored is not None:
        files = len(restored.plan.files)
        _log.info("%d layer files, %.1f MB, stay in the bucket until they are read",
                  files, restored.plan.bytes_total / 1e6)  # fmt: skip
    return True


def _take_epoch(bucket: BucketManifest, nonce: str, sleep: Callable[[float], None]) -> int:
    """As the server that wrote there before, whose slot at the source is ours now."""
    while True:
        try:
            return patiently(lambda: bucket.take_epoch(nonce, bucket.state.server_id), sleep)
        except OvertakenError:
            patiently(bucket.read, sleep)
