"""A directory that ends at an LSN and leaves its layers in the bucket: they are read there, and
nothing is written there.

    D/manifest   the state at L, by the bucket's manifest as it was when D was restored
    D/bucket     which bucket that is, and no entry: D never was the one to write there

Whoever writes to the bucket goes on meanwhile. Its merges put other bundles in the place of those
that D names, and some time later these are deleted. What reads at L take is in the newer ones as
well, as long as L is retained there. So each start asks the bucket's manifest whether it still
names all that D has there alone, and if it does not, D is restored anew, as of the same LSN: that
is a second, as for any lazy restore.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from engine.errors import DirectoryRefusedError
from engine.storage import Storage
from formats import manifest as layout
from formats.bucket_state import BucketState
from formats.file_name import FileName
from formats.lsn import show as show_lsn
from formats.manifest import Manifest
from server.backup import binding, restore_plan
from server.backup.bucket_manifest import BucketManifest
from server.backup.fetch import patiently
from server.backup.object_store import ObjectStore
from server.backup.restore import PARALLELISM, boottime, restore
from server.backup.restore_plan import RestoreRefusedError
from server.backup.restore_target import Target, Wanted, read_mark

_log = logging.getLogger("pageserver.backup")


def ends_at(storage: Storage, directory: Path) -> int | None:
    """The LSN at which a directory ends, or will when its restore is finished, None: it goes on, or
    is none. CorruptionError."""
    if binding.read(storage, directory, "").entries:
        return None  # it writes to a bucket, and its manifest may be long
    local = _manifest(storage, directory)
    if local is not None:
        return local.ends_at_lsn
    mark = read_mark(storage, directory)
    return None if mark is None else mark.lsn


def gone(lsn: int) -> str:
    """What is to be said of an object that is not there any more, of a directory that ends."""
    at = show_lsn(lsn)
    return (
        "the bucket has this object no longer, as when its server has merged it with others. Start "
        f"again: that looks for the state at {at} in newer layers, which have it as long as that "
        f"server retains {at}, as by `pageserver point create NAME --lsn {at}`"
    )


def open_at_its_end(
    store: ObjectStore,
    directory: Path,
    storage: Storage,
    url: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Let the manifest of a directory that ends at an LSN name what the bucket at `url` has.

    DirectoryRefusedError: it does not read from there. RestoreRefusedError, StoreError,
    CorruptionError: its state cannot be had, now or ever.
    """
    with ThreadPoolExecutor(PARALLELISM, "bucket-manifest") as pool:
        bucket = BucketManifest(store, boottime, in_parallel=pool.map)
        with closing(Target(storage, directory)) as target:
            local = _manifest(storage, directory)
            wanted = _unfinished(target, url) if local is None else _bound(target, local, url)
            state = patiently(bucket.read, sleep)
            is_whole = local is not None and not _begins_anew(target, local, state, wanted)
        if not is_whole:
            restore(
                store, directory, storage, url, lsn=wanted.lsn, lazy=True, chunks=wanted.chunks,
                sleep=sleep, bucket=bucket,
            )  # fmt: skip
    _say_how_long(state.manifest, wanted)


def _unfinished(target: Target, url: str) -> Wanted:
    """What was begun, and can go on with this bucket."""
    mark = read_mark(target.storage, target.directory)
    if mark is None or not mark.lazy or mark.url != url:
        raise DirectoryRefusedError(
            f"{target.directory} has an unfinished restore of {mark}: run `pageserver restore` "
            "once more with the same options, which finishes it, or remove the directory"
        )
    return mark


def _bound(target: Target, local: Manifest, url: str) -> Wanted:
    """The restore that leads to just this directory."""
    assert local.ends_at_lsn is not None and local.identity is not None
    directory, end = target.directory, show_lsn(local.ends_at_lsn)
    bound = binding.url_of(target.storage, directory)
    if bound is None:
        raise DirectoryRefusedError(
            f"{directory} was restored as of {end}, with all its layers, and ends there: serve it "
            "without --s3. To go on from the primary, restore once more without --lsn, into "
            "another directory"
        )
    if bound != url:
        raise DirectoryRefusedError(
            f"{directory} was restored as of {end} from {bound} and reads its layers there, not in "
            f"{url}: serve it with --s3 {bound}, or restore once more, into another directory"
        )
    chunks = local.identity.chunks
    return Wanted(url, local.ends_at_lsn, None if chunks == "all" else chunks, lazy=True)


def _begins_anew(target: Target, local: Manifest, state: BucketState, wanted: Wanted) -> bool:
    """Whether the bucket's manifest has other bundles in the place of some that are needed, so that
    what was restored counts no more."""
    identity, end = state.manifest.identity, local.ends_at_lsn
    if identity is None or local.identity is None or identity.tenant != local.identity.tenant:
        raise RestoreRefusedError(
            f"{wanted.url} has no backup of the cluster in {target.directory}"
        )
    lost = _unnamed(target, local, state.manifest)
    if not lost:
        return False
    try:
        restore_plan.plan(state, end, always_ends=True)
    except RestoreRefusedError as error:
        _log.warning(
            "%d of %d bundles count no more in the bucket, as %s: reads that need them fail once "
            "they are deleted there. They cannot be replaced: %s",
            len(lost), len(local.files), lost[0].text, error,
        )  # fmt: skip
        return False
    _log.info("%d of %d bundles were merged in the bucket: %s is restored anew, as of %s",
              len(lost), len(local.files), target.directory, show_lsn(wanted.lsn or 0))  # fmt: skip
    target.begin_anew(wanted)
    return True


def _say_how_long(there: Manifest, wanted: Wanted) -> None:
    """Until when the bucket's server retains what is read here, if nothing keeps it for good."""
    assert wanted.lsn is not None
    is_held = any(point.lsn == wanted.lsn for point in there.points.values())
    if not is_held and wanted.lsn >= there.horizon_lsn:
        _log.info(
            "the server of %s retains %s until its horizon, now %s, passes it; a point there keeps "
            "it longer", wanted.url, show_lsn(wanted.lsn), show_lsn(there.horizon_lsn),
        )  # fmt: skip


def _unnamed(target: Target, local: Manifest, there: Manifest) -> list[FileName]:
    """Bundles that are in the bucket alone, and that its manifest names no more."""
    return [
        name
        for name, epoch in sorted(local.uploaded.items())
        if there.uploaded.get(name) != epoch
        and not target.storage.exists(target.layers / name.text)
    ]


def _manifest(storage: Storage, directory: Path) -> Manifest | None:
    path = directory / "manifest"
    if not storage.exists(path):
        return None
    return layout.replay(storage.read_all(path), str(path))[0]
