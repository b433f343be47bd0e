# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Redo of sequence records, resource manager 15.

A sequence is a page with a single tuple. Every record holds it whole and makes the page anew, as
seq_redo does in commands/sequence.c of PostgreSQL 15.18 and 18.6. Main data: u32 tablespace,
database, relation; the tuple. The special space says what the page is: u32 0x1717.
"""

from formats import coding
from formats import page as layout


def redo(part):
    """Bring part.page to its state after the record; 1: its pd_lsn is to be set."""
    page = part.page
    source = part.bytes
    length = part.main_length - 12
    if part.info & 0xF0 != 0 or part.block_id != 0:
        raise ValueError("sequence record of an unknown opcode or block")
    layout.init(page, 4)
    coding.put_u32(page, 8184, 0x1717)
    if layout.add_item(page, source, part.main + 12, length, 1, False, False) == 0:
        raise ValueError("sequence tuple does not fit the page")
    return 1
