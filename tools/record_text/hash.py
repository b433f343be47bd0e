"""Hash records in words (src/include/access/hash_xlog.h, rmgrdesc/hashdesc.c)."""

from tools.record_text.cursor import Cursor
from tools.record_text.record import Describe, Record, fixed, nothing, of_version

UPDATE_MASKS, UPDATE_SPLITPOINT = 1, 2


def _split_allocate(record: Record) -> str:
    bucket, flags = Cursor(record.main).fields("I4xB")
    masks, splitpoint = ("FT"[bool(flags & bit)] for bit in (UPDATE_MASKS, UPDATE_SPLITPOINT))
    return (
        f"new_bucket {bucket}, meta_page_masks_updated {masks}, issplitpoint_changed {splitpoint}"
    )


VACUUM_ONE_PAGE: dict[int, Describe] = {
    14: fixed("Ii", "ntuples {1}, latestRemovedXid {0}"),
    16: fixed("IH", "ntuples {1}, snapshotConflictHorizon {0}"),
    17: fixed("IH?", "ntuples {1}, snapshotConflictHorizon {0}, isCatalogRel {2}"),
}
"""By the version that brought it."""


def describers(version: int) -> dict[int, Describe]:
    return {
        0x00: fixed("d4xH", "num_tuples {:g}, fillfactor {}"),  # INIT_META_PAGE
        0x10: fixed("H", "bmsize {}"),  # INIT_BITMAP_PAGE
        0x20: fixed("H", "off {}"),  # INSERT
        0x30: fixed("H?", "bmsize {}, bmpage_found {}"),  # ADD_OVFL_PAGE
        0x40: _split_allocate,  # SPLIT_ALLOCATE_PAGE
        0x50: nothing,  # SPLIT_PAGE
        0x60: fixed("HH", "old_bucket_flag {}, new_bucket_flag {}"),  # SPLIT_COMPLETE
        0x70: fixed("H?", "ntups {}, is_primary {}"),  # MOVE_PAGE_CONTENTS
        # SQUEEZE_PAGE
        0x80: fixed("IIH?", "prevblkno {}, nextblkno {}, ntups {}, is_primary {}"),
        0x90: fixed("??", "clear_dead_marking {}, is_primary {}"),  # DELETE
        0xA0: nothing,  # SPLIT_CLEANUP
        0xB0: fixed("d", "ntuples {:g}"),  # UPDATE_META_PAGE
        0xC0: of_version(VACUUM_ONE_PAGE, version),
    }
