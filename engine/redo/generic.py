# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Redo of generic records, resource manager 20, which extensions use: contrib/bloom writes them.

A record does not know what its pages mean. Each block's data is a list of fragments: u16 offset in
the page, u16 length, and so many bytes to put there. What lies between pd_lower and pd_upper then
is not described and becomes zeros, as it did where the record was written. This is generic_redo in
access/transam/generic_xlog.c of PostgreSQL 15.18, 17.11 and 18.6. A page that is new, or that its
owner wants logged whole, comes as an image and needs no redo.
"""

from formats import coding


def redo(part):
    """Bring part.page to its state after the record; 1: its pd_lsn is to be set."""
    page = part.page
    source = part.bytes
    pos = part.data
    end = part.data + part.data_length
    if part.info & 0xF0 != 0:
        raise ValueError("generic record of an unknown opcode")
    while pos < end:
        offset = coding.u16(source, pos)
        length = coding.u16(source, pos + 2)
        if pos + 4 + length > end or offset + length > 8192:
            raise ValueError("generic record whose fragment exceeds it or the page")
        coding.copy(page, offset, source, pos + 4, length)
        pos += 4 + length
    lower = coding.u16(page, 12)
    upper = coding.u16(page, 14)
    if lower > upper or upper > 8192:
        raise ValueError("generic record of a page whose lower and upper are out of order")
    coding.fill(page, lower, upper - lower, 0)
    return 1
