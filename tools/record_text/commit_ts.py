"""CommitTs records in words (src/include/access/commit_ts.h, rmgrdesc/committsdesc.c)."""

from tools.record_text.record import Describe, fixed, page_letter


def describers(version: int) -> dict[int, Describe]:
    page = page_letter(version)
    return {
        0x00: fixed(page, "{}"),  # ZEROPAGE
        0x10: fixed(page + "I", "pageno {}, oldestXid {}"),  # TRUNCATE
    }
