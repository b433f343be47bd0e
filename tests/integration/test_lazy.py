"""Layers that are only in a bucket, on a real S3 server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.block_cache import BLOCK_BYTES
from engine.lazy_storage import LazyStorage
from engine.remote_blocks import QUIET_SECONDS
from server.backup.bucket_files import BucketFiles
from server.backup.s3_store import S3Store
from tests.fixtures.lazy_store import AwayStore, away, pages
from tests.fixtures.s3_server import Bucket
from tests.fixtures.small_store import SMALL_POLICY, image


@pytest.fixture
def store(tmp_path: Path, s3_bucket: Bucket) -> Iterator[AwayStore]:
    """A store whose bundles are in the bucket, with a cache of one block."""
    found = away(tmp_path)
    found.small.let_go()
    bucket = S3Store(s3_bucket.url, s3_bucket.endpoint, parallelism=16)
    for name, data in found.files.objects.items():
        bucket.put_stream(name, iter([data]), len(data))
    found.files.objects.clear()
    found.storage = LazyStorage(found.small.directory, BucketFiles(bucket), BLOCK_BYTES)
    found.small.open(found.storage)
    found.small.ingest()
    yield found
    found.small.let_go()


def test_every_page_while_the_server_comes_and_goes(store: AwayStore, s3_bucket: Bucket) -> None:
    small = store.small
    assert not store.storage.bundles_here()
    for _ in range(2):
        small.store.frames._entries.clear()
        assert pages(small, store.lsns) == store.expected
    blocks = store.storage.blocks
    bundles = len(small.store.layers.state.files)
    assert blocks.cache.slot_count == 1 < bundles
    assert blocks.misses > bundles
    newest = store.lsns[-1]
    s3_bucket.server.kill()
    try:
        assert small.mark(3, newest) == 77, "memory has it"
        for source in store.storage._remote.values():
            blocks.doubt(source, 0, source.size)
        small.store.frames._entries.clear()
        with pytest.raises(LookupError, match="only in the bucket, which does not answer"):
            small.page(5, store.lsns[2])
    finally:
        s3_bucket.server.start()
    blocks._quiet_until -= QUIET_SECONDS
    assert pages(small, store.lsns) == store.expected
    small.put(image(2, 999))
    small.flush()
    small.compact(SMALL_POLICY)
    assert store.storage.bundles_here()
    assert pages(small, store.lsns) == store.expected
    compactor = small.store.compactor
    assert compactor is not None
    assert not compactor.damaged
