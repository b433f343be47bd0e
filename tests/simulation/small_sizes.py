"""The engine with buffers of the size of a simulated world: a store opens in a millisecond.

What takes gigabytes in a server happens here after some records; nothing but sizes is changed,
and that LMDB's pages, which are sound here, are not read by a child process first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

from engine import (
    bundle_merge,
    bundle_writer,
    compactor,
    directory_check,
    image_job,
    index,
    index_rebuild,
    merged_versions,
    page_store,
    recovery,
    stripe_image,
    survey,
    version_store,
    wal_ingest,
)
from engine.journal import Journal
from engine.layer_map import LayerMap

HOT_RECORDS = 4
FILE_BYTES = 700  # a merge has several outputs
MAP_BYTES = 1 << 26


@contextmanager
def small_sizes() -> Iterator[None]:
    """Within it, every store that is opened is a small one."""
    changes = [
        patch.object(page_store, "Journal", partial(Journal, tail_bytes=1 << 16)),
        patch.object(recovery, "LayerMap", partial(LayerMap, table_bytes_max=40)),
        patch.object(version_store, "READER_CAPACITY", 128),
        patch.object(version_store, "HOT_RECORDS", HOT_RECORDS),
        patch.object(wal_ingest, "RECORDS_PER_BATCH", 256),
        patch.object(wal_ingest, "REFERENCES_PER_BATCH", 512),
        patch.object(wal_ingest, "HOT_PAGES_PER_READ", 8),
        patch.object(stripe_image, "RUN_BLOCKS", 64),
        patch.object(survey, "BATCH_STRIPES", 2),
        patch.object(compactor, "JUDGED_STRIPES", 2),
        patch.object(image_job, "IMAGE_BYTES_MAX", 3 << 13),
        patch.object(bundle_merge, "BATCH_BYTES", 1 << 15),
        patch.object(bundle_merge, "HOT_RECORDS", HOT_RECORDS),
        patch.object(bundle_writer, "BATCH_BYTES", 1 << 15),
        patch.object(merged_versions, "VERSIONS_MAX", 512),
        patch.object(index, "MAP_BYTES", MAP_BYTES),
        patch.dict(bundle_merge.merge_bundles.__kwdefaults__, file_bytes=FILE_BYTES),
        patch.object(index_rebuild, "check_in_child", lambda path: True),
        patch.object(directory_check, "check_in_child", lambda path: True),
    ]
    for change in changes:
        change.start()
    try:
        yield
    finally:
        for change in reversed(changes):
            change.stop()
