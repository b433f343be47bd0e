# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""An SP-GiST page and its tuples, and the ways in which redo changes them.

    offset  size  field, at the end of the page
    8184    2     flags: 1 meta page, 4 leaf, 8 of the tree of nulls
    8186    2     redirections on the page
    8188    2     placeholders on the page
    8190    2     0xFF82

Blocks 0, 1, 2 are the meta page, the root and the root of the tree of nulls. Tuples keep their
numbers, as others name them by these: one that goes leaves a *dead tuple* behind. Every tuple has
its state in the two lowest bits of its first word. 0 is a live one,

    leaf    0   4   state, length << 2          inner   0   4   state, 1 bit, 13 bits nodes,
            4   2   14 bits number of the                       16 bits length of its prefix
                    next one in its chain,              4   2   length
                    2 bits flags                        6   2   padding
            6   6   TID of the row                      8   -   prefix, nodes
            12  -   values

where a node is an index tuple: TID of what is below it (6 bytes), u16 with 13 bits length, label.
The others, 16 bytes long, are

    dead    0   4   state, 16 << 2: 1 a redirection to where its content went, 2 a leaf that is
                    gone from a chain of which it was the only one, 3 a placeholder
            4   2   0
            6   6   TID to which a redirection leads, block 0xFFFFFFFF number 0 in the others
            12  4   transaction that redirected it, 0 in the others

Layouts are those of access/spgist_private.h of PostgreSQL 15.18, 17.11 and 18.6; functions do what
those named in parentheses do in access/spgist/spgutils.c, spgdoinsert.c and spgxlog.c.
"""

from formats import coding, index_tuples
from formats import page as layout

SPECIAL = 8184
REDIRECTIONS = 8186
PLACEHOLDERS = 8188
PAGE_ID = 8190

LEAF = 4
NULLS = 8

REDIRECT = 1
DEAD = 2
PLACEHOLDER = 3

# Where a dead tuple is formed: the last 16 bytes of a part's scratch.
FORMED = 8176
DEAD_LENGTH = 16


def check(page):
    """Refuse a page that has no SP-GiST fields at its end."""
    if len(page) != 8192 or coding.u16(page, 16) != SPECIAL or coding.u16(page, PAGE_ID) != 0xFF82:
        raise ValueError("page is not one of an spgist index")
    return 0


def start(page, flags):
    """Make it an empty page (SpGistInitPage)."""
    layout.init(page, 8)
    coding.put_u16(page, SPECIAL, flags)
    return coding.put_u16(page, PAGE_ID, 0xFF82)


def leaf_length(view, pos, end):
    """Length of the leaf tuple at `pos`, which must end at or before `end`."""
    if pos + 16 > end:
        raise ValueError("spgist leaf tuple is cut off")
    length = coding.u32(view, pos) >> 2
    if length < 16 or length > end - pos:
        raise ValueError("spgist leaf tuple is too short or cut off")
    return length


def inner_length(view, pos, end):
    """Length of the inner tuple at `pos`, which must end at or before `end`."""
    if pos + 8 > end:
        raise ValueError("spgist inner tuple is cut off")
    length = coding.u16(view, pos + 4)
    if length < 8 or length > end - pos:
        raise ValueError("spgist inner tuple is too short or cut off")
    return length


def _find(page, number, length_min):
    """Where tuple `number` starts; it has at least that many bytes before the page's own."""
    offset = layout.item_offset(page, number)
    length = layout.item_length(page, number)
    if offset < 24 or length < length_min or offset + length > SPECIAL:
        raise ValueError("spgist tuple is too short or outside of its page")
    return offset


def _put(page, source, pos, length, number):
    """Add a tuple as `number`; the later ones, if there are any, move up."""
    if layout.add_item(page, source, pos, length, number, False, False) != number:
        raise ValueError("spgist tuple does not fit the page")
    return 0


def _count(page, counter, difference):
    return coding.put_u16(page, counter, (coding.u16(page, counter) + difference) & 0xFFFF)


def replace(page, source, pos, length, number):
    """Put a tuple in the place of another."""
    index_tuples.delete(page, number)
    return _put(page, source, pos, length, number)


def add(page, source, pos, length, number):
    """Put a tuple behind the others or in the place of a placeholder (addOrReplaceTuple)."""
    if number <= layout.max_offset(page):
        if coding.u32(page, _find(page, number, 4)) & 3 != PLACEHOLDER:
            raise ValueError("spgist tuple to replace is not a placeholder")
        _count(page, PLACEHOLDERS, -1)
        index_tuples.delete(page, number)
    return _put(page, source, pos, length, number)


def chain(page, number, following):
    """Let `following` come after leaf tuple `number` in its chain."""
    pos = _find(page, number, 16) + 4
    return coding.put_u16(page, pos, (coding.u16(page, pos) & 0xC000) | (following & 0x3FFF))


def _put_tid(view, pos, block, number):
    coding.put_u16(view, pos, block >> 16)
    coding.put_u16(view, pos + 2, block & 0xFFFF)
    return coding.put_u16(view, pos + 4, number)


def link(page, number, node, block, target):
    """Let a node of inner tuple `number` lead to tuple `target` of a block (spgUpdateNodeLink)."""
    pos = _find(page, number, 8)
    end = pos + layout.item_length(page, number)
    word = coding.u32(page, pos)
    if node >= (word >> 3 & 0x1FFF):
        raise ValueError("spgist inner tuple does not have the node")
    pos += 8 + (word >> 16)
    while True:
        if pos + 8 > end:
            raise ValueError("spgist node is outside of its tuple")
        if node == 0:
            return _put_tid(page, pos, block, target)
        length = coding.u16(page, pos + 6) & 0x1FFF
        if length < 8:
            raise ValueError("spgist node is too short")
        pos += length
        node -= 1


def _form_dead(scratch, state, block, target, xid):
    """A dead tuple at FORMED; what comes after its state is for redirections (spgFormDeadTuple)."""
    coding.put_u32(scratch, FORMED, DEAD_LENGTH << 2 | state)
    coding.put_u16(scratch, FORMED + 4, 0)
    if state == REDIRECT:
        _put_tid(scratch, FORMED + 6, block, target)
        return coding.put_u32(scratch, FORMED + 12, xid)
    coding.fill(scratch, FORMED + 6, 4, 0xFF)
    coding.put_u16(scratch, FORMED + 10, 0)
    return coding.put_u32(scratch, FORMED + 12, 0)


def _count_dead(page, state):
    if state == REDIRECT:
        _count(page, REDIRECTIONS, 1)
    elif state == PLACEHOLDER:
        _count(page, PLACEHOLDERS, 1)
    return 0


def replace_by_dead(part, number, state, block, target, xid):
    """Put a dead tuple in the place of a tuple."""
    page = part.page
    scratch = part.scratch
    _form_dead(scratch, state, block, target, xid)
    replace(page, scratch, FORMED, DEAD_LENGTH, number)
    return _count_dead(page, state)


def _sort(part, pos, count):
    """The u16 that stand at `pos`, rising, in part.numbers; no two of them may be equal."""
    source = part.bytes
    numbers = part.numbers
    if count > 2048 or count > layout.max_offset(part.page):
        raise ValueError("spgist record with more tuples than its page has")
    for i in range(count):
        number = coding.u16(source, pos + 2 * i)
        k = i
        while k > 0 and numbers[k - 1] >= number:
            if numbers[k - 1] == number:
                raise ValueError("spgist record that deletes a tuple twice")
            numbers[k] = numbers[k - 1]
            k -= 1
        numbers[k] = number
    return 0


def delete(part, pos, count, first_state, other_state, block, target, xid):
    """Delete tuples, leaving dead ones in their places (spgPageIndexMultiDelete).

    Their numbers, u16, stand at `pos` in any order. The one that stands first becomes a dead tuple
    of state `first_state`, the others become `other_state`; redirections lead to tuple `target`.
    """
    page = part.page
    scratch = part.scratch
    numbers = part.numbers
    if count == 0:
        return 0
    _sort(part, pos, count)
    index_tuples.multi_delete(page, numbers, count)
    first = coding.u16(part.bytes, pos)
    for i in range(count):
        number = numbers[i]
        state = first_state if number == first else other_state
        _form_dead(scratch, state, block, target, xid)
        _put(page, scratch, FORMED, DEAD_LENGTH, number)
        _count_dead(page, state)
    return 0


def swap(page, number, other):
    """Two tuples change their numbers, but stay where they are."""
    pos = layout.item_position(page, number)
    other_pos = layout.item_position(page, other)
    item = coding.u32(page, pos)
    coding.put_u32(page, pos, coding.u32(page, other_pos))
    return coding.put_u32(page, other_pos, item)


def end_redirection(page, number):
    """It leads nowhere any more; of the transaction nothing is changed."""
    pos = _find(page, number, 16)
    word = coding.u32(page, pos)
    if word & 3 != REDIRECT:
        raise ValueError("spgist tuple is not a redirection")
    coding.put_u32(page, pos, word | PLACEHOLDER)
    coding.fill(page, pos + 6, 4, 0xFF)
    coding.put_u16(page, pos + 10, 0)
    _count(page, REDIRECTIONS, -1)
    return _count(page, PLACEHOLDERS, 1)


def cut_placeholders(part, first):
    """Delete the tuples from `first` on, all of them placeholders."""
    page = part.page
    numbers = part.numbers
    count = layout.max_offset(page) + 1 - first
    if count < 1 or count > 2048:
        raise ValueError("spgist placeholders to delete that are not there")
    for i in range(count):
        numbers[i] = first + i
    _count(page, PLACEHOLDERS, -count)
    return index_tuples.multi_delete(page, numbers, count)
