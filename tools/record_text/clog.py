"""CLOG records in words (src/include/access/clog.h, rmgrdesc/clogdesc.c).

Numbers of SLRU pages have 64 bits from 17 on.
"""

from tools.record_text.record import Describe, fixed, page_letter


def describers(version: int) -> dict[int, Describe]:
    page = page_letter(version)
    return {
        0x00: fixed(page, "page {}"),  # ZEROPAGE
        0x10: fixed(page + "I", "page {}; oldestXact {}"),  # TRUNCATE
    }
