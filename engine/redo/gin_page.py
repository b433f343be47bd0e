# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""A GIN page: the 8 bytes of its own at the end, and what lies before them.

    offset  size  field
    8184    4     right link: next page of its level or list, 0xFFFFFFFF if it is the last
    8188    2     count: downlinks of an inner posting tree page, heap tuples of a list page
    8190    2     flags; the two lowest say what a page of a tree holds

    flags           what lies before
    none            inner page of the entry tree: index tuples, their TID's block is the downlink
    LEAF            leaf of the entry tree: index tuples with a short posting list or a tree's root
    DATA            inner page of a posting tree: at 24 its right bound, from 32 on downlinks
    DATA | LEAF     leaf of a posting tree: at 24 its right bound, from 32 on segments (gin_data.py)
    LIST            page of the pending list: index tuples, unsorted
    META            block 0: at 24 the head of the pending list and statistics, 56 bytes

A downlink has 10 bytes: child block (high half u16, low half u16) and the highest TID below it.
pd_lower marks the end of what the page holds; pages of posting trees that were last written before
9.4 have it at the header's end, and for inner ones the count alone is to be trusted.

Layouts are those of access/ginblock.h of PostgreSQL 15.18, 17.11 and 18.6.
"""

from formats import coding
from formats import page as layout

RIGHT_LINK = 8184
COUNT = 8188
FLAGS = 8190

CONTENT = 24
DATA_START = 32
DATA_END = 8184
DOWNLINK_BYTES = 10
META_BYTES = 56

# Flags.
DATA = 1
LEAF = 2
DELETED = 4
META = 8
LIST = 16
LIST_FULL_ROW = 32
INCOMPLETE_SPLIT = 64
COMPRESSED = 128


def check(page):
    """Refuse a page that has no GIN fields at its end."""
    if len(page) != 8192 or coding.u16(page, 16) != RIGHT_LINK:
        raise ValueError("page is not one of a gin index")
    return 0


def check_tree_page(page, kind):
    """Refuse a page that is not of this kind: any of DATA and LEAF."""
    check(page)
    if coding.u16(page, FLAGS) & 3 != kind:
        raise ValueError("gin record for another kind of page")
    return 0


def check_data(page):
    check(page)
    if coding.u16(page, FLAGS) & DATA == 0:
        raise ValueError("gin page is not one of a posting tree")
    return 0


def is_last(page):
    """Whether no page follows on its level or list."""
    return coding.u16(page, RIGHT_LINK) == 0xFFFF and coding.u16(page, RIGHT_LINK + 2) == 0xFFFF


def set_flags(page, flags):
    return coding.put_u16(page, FLAGS, coding.u16(page, FLAGS) | flags)


def clear_incomplete_split(page):
    """The parent has the downlink that was missing."""
    check(page)
    flags = coding.u16(page, FLAGS) & (0xFFFF - INCOMPLETE_SPLIT)
    return coding.put_u16(page, FLAGS, flags)


def start(page, flags):
    """Make it an empty page, the last of its level (GinInitPage)."""
    layout.init(page, 8)
    coding.fill(page, RIGHT_LINK, 4, 0xFF)
    return coding.put_u16(page, FLAGS, flags)


def start_meta(page, source, pos):
    """Block 0, always made anew from the 56 bytes at source[pos] (GinInitMetabuffer)."""
    start(page, META)
    coding.copy(page, CONTENT, source, pos, META_BYTES)
    return coding.put_u16(page, 12, CONTENT + META_BYTES)


def add_tuple(page, source, pos, end, number):
    """Add the tuple at source[pos], which must end at or before `end`; returns its length.

    It becomes tuple `number`, the later ones move up.
    """
    if pos + 8 > end or number < 1:
        raise ValueError("gin tuple is cut off or has no number")
    length = coding.u16(source, pos + 6) & 0x1FFF
    if length < 8 or pos + length > end:
        raise ValueError("gin tuple is too short or cut off")
    if layout.add_item(page, source, pos, length, number, False, False) == 0:
        raise ValueError("gin tuple does not fit the page")
    return length


def append_tuples(page, source, pos, end, count):
    """Add the `count` tuples that fill source[pos : end], one behind the other."""
    number = layout.max_offset(page) + 1
    while count > 0 and pos < end:
        pos += add_tuple(page, source, pos, end, number)
        number += 1
        count -= 1
    if count != 0 or pos != end:
        raise ValueError("gin record whose tuples do not fill its data")
    return 0


def downlink_position(page, number):
    """Where downlink `number` stands in an inner posting tree page, which must have it."""
    if number < 1 or number > coding.u16(page, COUNT):
        raise ValueError("gin downlink that the page does not have")
    return DATA_START + DOWNLINK_BYTES * (number - 1)


def insert_downlink(page, number, source, pos, right_child):
    """Downlink `number` led to a page that was split: now it leads to the right half.

    That block stands at source[right_child]; the left half's downlink, source[pos], comes before.
    """
    place = downlink_position(page, number)
    count = coding.u16(page, COUNT) + 1
    end = DATA_START + DOWNLINK_BYTES * count
    if end > DATA_END:
        raise ValueError("gin downlink does not fit the page")
    coding.copy(page, place, source, right_child, 4)
    coding.move(page, place + DOWNLINK_BYTES, place, end - DOWNLINK_BYTES - place)
    coding.copy(page, place, source, pos, DOWNLINK_BYTES)
    coding.put_u16(page, COUNT, count)
    return coding.put_u16(page, 12, end)


def delete_downlink(page, number):
    place = downlink_position(page, number)
    count = coding.u16(page, COUNT) - 1
    end = DATA_START + DOWNLINK_BYTES * count
    coding.move(page, place, place + DOWNLINK_BYTES, end - place)
    coding.put_u16(page, COUNT, count)
    return coding.put_u16(page, 12, end)
