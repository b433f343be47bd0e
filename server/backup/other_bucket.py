"""A directory whose manifest says that bundles are in a bucket, and another bucket.

Such bundles may be in that bucket alone, or go from here because they are there. To take another
bucket for it would lose them. One that has all of them, as a copy of the first has, is as good.
"""

from pathlib import Path

from engine.errors import DirectoryRefusedError
from engine.storage import Storage
from formats import manifest as layout
from server.backup import binding
from server.backup.bucket_manifest import BucketManifest
from server.backup.fetch import patiently
from server.backup.object_store import ObjectStore
from server.backup.restore import boottime


def refuse_other_bucket(store: ObjectStore, storage: Storage, directory: Path, url: str) -> None:
    """DirectoryRefusedError if the bucket at `url` lacks what the manifest says is in one.

    It is asked only where the directory is not bound to it already.
    """
    path = directory / "manifest"
    bound = binding.url_of(storage, directory)
    if bound == url or not storage.exists(path):
        return
    local, _ = layout.replay(storage.read_all(path), str(path))
    if not local.uploaded:
        return
    there = patiently(BucketManifest(store, boottime).read).manifest
    lacking = binding.lacking(storage, directory, local, there)
    if lacking:
        raise DirectoryRefusedError(
            f"{directory} has layers in {bound or 'another bucket'} that {url} lacks, "
            f"{len(lacking)} of them, as {lacking[0].text}: go on with the former, or copy all of "
            "its objects to the latter first"
        )
