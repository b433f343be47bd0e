"""BRIN records in words (src/include/access/brin_xlog.h, rmgrdesc/brindesc.c)."""

from tools.record_text.record import Describe, fixed


def describers(version: int) -> dict[int, Describe]:
    """By opcode, without the bit that says that the page is initialised."""
    return {
        0x00: fixed("IH", "v{1} pagesPerRange {0}"),  # CREATE_INDEX
        0x10: fixed("IIH", "heapBlk {} pagesPerRange {} offnum {}"),  # INSERT
        # UPDATE
        0x20: fixed("H2xIIH", "heapBlk {1} pagesPerRange {2} old offnum {0}, new offnum {3}"),
        0x30: fixed("H", "offnum {}"),  # SAMEPAGE_UPDATE
        0x40: fixed("I", "targetBlk {}"),  # REVMAP_EXTEND
        0x50: fixed("IIH", "pagesPerRange {}, heapBlk {}, page offset {}"),  # DESUMMARIZE
    }
