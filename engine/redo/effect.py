# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Changes that a record implies for a visibility map or SLRU page without naming the page.

The version is a list of items (formats/version.py, EFFECT); this applies them in order. SLRU pages
have no header, so there is no pd_lsn; on a visibility map page PostgreSQL does not set pd_lsn
for these either (visibilitymap_clear and visibilitymap_prepare_truncate in
src/backend/access/heap/visibilitymap.c, 15 and 18).
"""

from engine.redo import visibility
from formats import coding


def apply(page, source, pos, length):
    """Apply the EFFECT at source[pos : pos + length] to `page`; 0, or ValueError if malformed."""
    effect_class = coding.u8(source, pos + 1)
    count = coding.u16(source, pos + 2)
    if length != 4 + 8 * count:
        raise ValueError("effect: its length is not that of its items")
    item = pos + 4
    if effect_class == 6:
        return set_commit_timestamps(page, source, item, count)
    i = 0
    while i < count:
        index = coding.u16(source, item)
        argument = coding.u16(source, item + 2)
        value = coding.u32(source, item + 4)
        if effect_class == 1:
            visibility.clear_bits(page, index, argument)
        elif effect_class == 2:
            visibility.truncate(page, value)
        elif effect_class == 3:
            set_transaction_status(page, index, argument)
        elif effect_class == 4:
            coding.put_u32(page, 4 * index, value)
        elif effect_class == 5:
            set_multixact_member(page, index, argument, value)
        else:
            raise ValueError("effect: unknown class")
        item += 8
        i += 1
    return 0


def set_transaction_status(page, index, status):
    """Set a transaction's two bits, four transactions a byte (clog.c)."""
    byte = index >> 2
    shift = (index & 3) * 2
    value = coding.u8(page, byte)
    value = value - (value & (3 << shift)) + ((status & 3) << shift)
    return coding.put_u8(page, byte, value)


def set_multixact_member(page, index, status, xid):
    """Write one member: groups of four status bytes and four xids (multixact.c)."""
    group = index >> 2
    in_group = index & 3
    coding.put_u8(page, 20 * group + in_group, status)
    return coding.put_u32(page, 20 * group + 4 + 4 * in_group, xid)


def set_commit_timestamps(page, source, item, count):
    """Write a commit's time and origin for each transaction, 10 bytes each (commit_ts.c).

    The first two items hold them: the origin as argument, the time in two halves as values.
    """
    if count < 2:
        raise ValueError("effect: a commit without its time")
    origin = coding.u16(source, item + 2)
    low = coding.u32(source, item + 4)
    high = coding.u32(source, item + 12)
    while count > 2:
        item += 8
        count -= 1
        at = 10 * coding.u16(source, item + 8)
        coding.put_u32(page, at, low)
        coding.put_u32(page, at + 4, high)
        coding.put_u16(page, at + 8, origin)
    return 0
