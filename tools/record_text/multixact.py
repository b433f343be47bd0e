"""MultiXact records in words (src/include/access/multixact.h, rmgrdesc/mxactdesc.c)."""

from tools.record_text.cursor import Cursor
from tools.record_text.record import Describe, Record, fixed, page_letter

STATUSES = ("keysh", "sh", "fornokeyupd", "forupd", "nokeyupd", "upd")


def _create(record: Record) -> str:
    cursor = Cursor(record.main)
    multi, offset, count = cursor.fields("IIi")
    text = f"{multi} offset {offset} nmembers {count}: "
    for _ in range(count):
        xid, status = cursor.fields("II")
        text += f"{xid} ({member_status(status)}) "
    return text


def member_status(status: int) -> str:
    return STATUSES[status] if status < len(STATUSES) else "unk"


def describers(version: int) -> dict[int, Describe]:
    page = fixed(page_letter(version), "{}")
    return {
        0x00: page,  # ZERO_OFF_PAGE
        0x10: page,  # ZERO_MEM_PAGE
        0x20: _create,
        0x30: fixed("4xIIII", "offsets [{}, {}), members [{}, {})"),  # TRUNCATE_ID
    }
