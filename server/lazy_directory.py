"""A data directory whose layers may be in a bucket: made from it if it is empty, and its storage.

boto3 takes a fifth of a second to load, so only a server with --s3 imports this.
"""

import os
from pathlib import Path

from engine import kill_points
from engine.cluster_identity import Wanted
from engine.kill_points import KillingStorage
from engine.lazy_storage import LazyStorage
from engine.remote_files import RemoteFiles
from engine.storage import Storage
from server.backup import read_only
from server.backup.bucket_files import PARALLEL_REQUESTS, BucketFiles
from server.backup.conditional_put import probe
from server.backup.lazy_start import begin_from_bucket, is_empty
from server.backup.other_bucket import refuse_other_bucket
from server.backup.s3_store import S3Store
from server.config import Settings


class _KillingLazyStorage(LazyStorage, KillingStorage):
    """For tests: engine/kill_points.py."""

    def __init__(self, directory: Path, files: RemoteFiles, cache_bytes: int, text: str) -> None:
        KillingStorage.__init__(self, directory, text)
        LazyStorage.__init__(self, directory, files, cache_bytes)


def open_directory(
    storage: Storage,
    directory: Path,
    url: str,
    endpoint: str | None,
    settings: Settings,
    wanted: Wanted,
) -> LazyStorage:
    """What a page server with --s3 uses in the place of `storage`. An empty directory begins with
    what the bucket has, if that is anything; one that ends at an LSN is only read.

    DirectoryRefusedError: not with this bucket. StoreError, RestoreRefusedError, CorruptionError,
    DirectoryInUseError, OSError.
    """
    has_fencing = settings.fencing == "on"
    # A client that reads has a thread of its own, which asks by itself for what is one request.
    requests = PARALLEL_REQUESTS + settings.connections_max
    store = S3Store(url, endpoint, parallelism=requests, conditional=has_fencing, is_prompt=True)
    end, files = read_only.ends_at(storage, directory), BucketFiles(store)
    if end is not None:
        read_only.open_at_its_end(store, directory, storage, url)
        files = BucketFiles(store, read_only.gone(end))
    else:
        refuse_other_bucket(store, storage, directory, url)
        if is_empty(storage, directory):
            check = (lambda nonce: probe(store, nonce)) if has_fencing else None
            begin_from_bucket(
                store, directory, storage, url,
                grace_seconds=settings.backup_grace_seconds, wanted=wanted, check=check,
            )  # fmt: skip
    cache_bytes = settings.block_cache_bytes
    text = os.environ.get(kill_points.VARIABLE)
    if text is not None:
        return _KillingLazyStorage(directory, files, cache_bytes, text)
    return LazyStorage(directory, files, cache_bytes)
