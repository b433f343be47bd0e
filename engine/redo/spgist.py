# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Redo of SP-GiST records, resource manager 16: one function for each opcode.

They do what the functions named in parentheses do in access/spgist/spgxlog.c of PostgreSQL 15.18,
17.11 and 18.6; records are laid out as access/spgxlog.h says. Their main data holds everything and
no block has data of its own; tuples in it are not aligned. What the header says of new pages is
that the block's page is made anew.

*State* below is u32 transaction, u8 whether an index is being built, 3 bytes of padding. The
transaction (of the whole, not of a subtransaction; 0 if it had none, as in REINDEX CONCURRENTLY) is
what redirections get; it stands in the record itself in all versions from 14 on, 18 merely calls
it otherwise.

Every byte of the page ends up as PostgreSQL's redo leaves it, but for pd_checksum. Where a record
does not fit the page an error is raised and the page, changed halfway, is not to be used.

Not here: the meta page, whose hints where there is room are changed without WAL, and not by redo.
"""

from engine.redo import spgist_page as pages
from formats import coding, index_tuples

ADD_LEAF = 0x10
MOVE_LEAFS = 0x20
ADD_NODE = 0x30
SPLIT_TUPLE = 0x40
PICK_SPLIT = 0x50
VACUUM_LEAF = 0x60
VACUUM_ROOT = 0x70
VACUUM_REDIRECT = 0x80


def redo(part):
    """Bring part.page to its state after the record; 1: its pd_lsn is to be set (spg_redo)."""
    info = part.info & 0xF0
    if info == ADD_LEAF:
        _add_leaf(part)
    elif info == MOVE_LEAFS:
        _move_leafs(part)
    elif info == ADD_NODE:
        _add_node(part)
    elif info == SPLIT_TUPLE:
        _split_tuple(part)
    elif info == PICK_SPLIT:
        _pick_split(part)
    elif info == VACUUM_LEAF:
        _vacuum_leaf(part)
    elif info == VACUUM_ROOT:
        _vacuum_root(part)
    elif info == VACUUM_REDIRECT:
        _vacuum_redirect(part)
    else:
        raise ValueError("spgist record of an unknown opcode")
    return 1


def _main_data(part, length):
    """Where the main data starts, which must have `length` bytes."""
    if part.main_length < length:
        raise ValueError("spgist record whose main data is too short")
    return part.main


def _main_end(part):
    return part.main + part.main_length


def _unexpected_block():
    raise ValueError("spgist record with a block that its opcode does not have")


def _open(part, is_made_anew, flags):
    """The page as this record finds it."""
    if is_made_anew:
        return pages.start(part.page, flags)
    return pages.check(part.page)


def _block(part, block_id):
    """The number of another block, where a link or a redirection is to lead."""
    number = part.block(block_id)
    if number < 0:
        raise ValueError("spgist record that does not name a block")
    return number


def _leaf_flags(stores_nulls):
    return pages.LEAF | pages.NULLS if stores_nulls else pages.LEAF


def _add_leaf(part):
    """A leaf tuple more (spgRedoAddLeaf).

    Main data: u8 whether the page is new, u8 whether it stores nulls, u16 number of the tuple, u16
    number of the one at the head of its chain, u16 number of the inner tuple above and u16 its
    node, if block 1 is to lead here; the tuple. Equal numbers of tuple and head: it takes the
    place of a dead one. Otherwise it comes second in the chain, if there is one.
    """
    page = part.page
    source = part.bytes
    main = _main_data(part, 10)
    number = coding.u16(source, main + 2)
    head = coding.u16(source, main + 4)
    if part.block_id == 1:
        pages.check(page)
        parent = coding.u16(source, main + 6)
        return pages.link(page, parent, coding.u16(source, main + 8), _block(part, 0), number)
    if part.block_id != 0:
        return _unexpected_block()
    length = pages.leaf_length(source, main + 10, _main_end(part))
    _open(part, coding.u8(source, main), _leaf_flags(coding.u8(source, main + 1)))
    if number == head:
        return pages.replace(page, source, main + 10, length, number)
    pages.add(page, source, main + 10, length, number)
    if head != 0:
        pages.chain(page, head, number)
    return 0


def _move_leafs(part):
    """A chain moves to a page that has room for one tuple more (spgRedoMoveLeafs).

    Main data: u16 tuples to move, u8 whether block 1 is new, u8 whether the only tuple to move is
    dead, u8 whether the pages store nulls, padding, u16 number of the inner tuple above, u16 its
    node, padding, at 12 the state, at 20 the tuples' numbers in block 0, their numbers in block 1,
    the tuples. The new tuple is the last of these, the only one if the one to move is dead.
    """
    page = part.page
    source = part.bytes
    main = _main_data(part, 20)
    moved = coding.u16(source, main)
    inserted = 1 if coding.u8(source, main + 3) else moved + 1
    numbers = main + 20 + 2 * moved
    leaf = numbers + 2 * inserted
    end = _main_end(part)
    if leaf > end:
        raise ValueError("spgist record whose main data is too short")
    last = coding.u16(source, leaf - 2)
    if part.block_id == 1:
        _open(part, coding.u8(source, main + 2), _leaf_flags(coding.u8(source, main + 4)))
        for i in range(inserted):
            length = pages.leaf_length(source, leaf, end)
            pages.add(page, source, leaf, length, coding.u16(source, numbers + 2 * i))
            leaf += length
        return 0
    pages.check(page)
    target = _block(part, 1)
    if part.block_id == 0:
        xid = coding.u32(source, main + 12)
        first_state = pages.PLACEHOLDER if coding.u8(source, main + 16) else pages.REDIRECT
        return pages.delete(
            part, main + 20, moved, first_state, pages.PLACEHOLDER, target, last, xid
        )
    if part.block_id == 2:
        parent = coding.u16(source, main + 6)
        return pages.link(page, parent, coding.u16(source, main + 8), target, last)
    return _unexpected_block()


def _add_node(part):
    """An inner tuple gets a node more, in its place or on another page (spgRedoAddNode).

    Main data: u16 number of the old tuple in block 0, u16 number of the new one in block 1, if it
    moves, u8 whether block 1 is new, u8 which block has the inner tuple above, if it moves, u16
    number of that one, u16 its node, padding, at 12 the state, at 20 the new tuple.
    """
    page = part.page
    source = part.bytes
    main = _main_data(part, 20)
    length = pages.inner_length(source, main + 20, _main_end(part))
    number = coding.u16(source, main)
    new_number = coding.u16(source, main + 2)
    moves = part.has_block(1)
    is_parent = moves and coding.u8(source, main + 5) == part.block_id
    _open(part, part.block_id == 1 and coding.u8(source, main + 4), 0)
    if part.block_id == 0 and not moves:
        return pages.replace(page, source, main + 20, length, number)
    if part.block_id == 1:
        pages.add(page, source, main + 20, length, new_number)
    elif part.block_id == 0:
        state = pages.PLACEHOLDER if coding.u8(source, main + 16) else pages.REDIRECT
        xid = coding.u32(source, main + 12)
        pages.replace_by_dead(part, number, state, _block(part, 1), new_number, xid)
    elif part.block_id != 2 or not is_parent:
        return _unexpected_block()
    if is_parent:
        parent = coding.u16(source, main + 6)
        node = coding.u16(source, main + 8)
        return pages.link(page, parent, node, _block(part, 1), new_number)
    return 0


def _split_tuple(part):
    """An inner tuple becomes two, the second below the first (spgRedoSplitTuple).

    Main data: u16 number of the first, u16 number of the second, u8 whether block 1 is new, u8
    whether the second stays in block 0, the first, the second.
    """
    page = part.page
    source = part.bytes
    main = _main_data(part, 6)
    end = _main_end(part)
    length = pages.inner_length(source, main + 6, end)
    second = main + 6 + length
    second_length = pages.inner_length(source, second, end)
    second_number = coding.u16(source, main + 2)
    stays = coding.u8(source, main + 5)
    if part.block_id == 1 and not stays:
        _open(part, coding.u8(source, main + 4), 0)
        return pages.add(page, source, second, second_length, second_number)
    if part.block_id != 0:
        return _unexpected_block()
    pages.check(page)
    pages.replace(page, source, main + 6, length, coding.u16(source, main))
    if stays:
        pages.add(page, source, second, second_length, second_number)
    return 0


def _pick_split(part):
    """A chain becomes an inner tuple with several chains below it (spgRedoPickSplit).

    Main data: u8 whether block 2 is a root that was a leaf, padding, u16 tuples to delete, u16
    tuples to insert, u8 whether block 0 is made anew, u8 whether block 1 is, u16 number of the
    inner tuple, u8 whether block 2 is made anew, u8 whether the pages store nulls, u8 whether the
    inner tuple above is in block 2 as well, padding, u16 number of that one, u16 its node, padding,
    at 20 the state, at 28 the numbers of the tuples to delete from block 0, the numbers of those to
    insert, u8 for each of these whether it goes to block 1 rather than 0, the inner tuple, they.
    """
    page = part.page
    source = part.bytes
    main = _main_data(part, 28)
    deleted = coding.u16(source, main + 2)
    inserted = coding.u16(source, main + 4)
    inner = main + 28 + 2 * deleted + 3 * inserted
    length = pages.inner_length(source, inner, _main_end(part))
    number = coding.u16(source, main + 8)
    nulls = pages.NULLS if coding.u8(source, main + 11) else 0
    parent = coding.u16(source, main + 14)
    node = coding.u16(source, main + 16)
    if part.block_id == 0 and not coding.u8(source, main):
        _open(part, coding.u8(source, main + 6), pages.LEAF | nulls)
        if not coding.u8(source, main + 6):
            state = pages.PLACEHOLDER if coding.u8(source, main + 24) else pages.REDIRECT
            xid = coding.u32(source, main + 20)
            target = _block(part, 2)
            pages.delete(part, main + 28, deleted, state, pages.PLACEHOLDER, target, number, xid)
        return _insert_leafs(part, inner - 3 * inserted, inserted, inner + length)
    if part.block_id == 1:
        _open(part, coding.u8(source, main + 7), pages.LEAF | nulls)
        return _insert_leafs(part, inner - 3 * inserted, inserted, inner + length)
    if part.block_id == 2:
        _open(part, coding.u8(source, main + 10), nulls)
        pages.add(page, source, inner, length, number)
        if coding.u8(source, main + 12):
            return pages.link(page, parent, node, _block(part, 2), number)
        return 0
    if part.block_id != 3:
        return _unexpected_block()
    pages.check(page)
    return pages.link(page, parent, node, _block(part, 2), number)


def _insert_leafs(part, numbers, count, leaf):
    """Of the leaf tuples that stand at `leaf`, add those that go to this block.

    At `numbers` stand their numbers, u16, and for each of them u8 whether it goes to block 1.
    """
    page = part.page
    source = part.bytes
    end = _main_end(part)
    goes_to = numbers + 2 * count
    for i in range(count):
        length = pages.leaf_length(source, leaf, end)
        if (coding.u8(source, goes_to + i) != 0) == part.block_id:
            pages.add(page, source, leaf, length, coding.u16(source, numbers + 2 * i))
        leaf += length
    return 0


def _vacuum_leaf(part):
    """VACUUM removes tuples from the chains of a leaf (spgRedoVacuumLeaf).

    Main data: u16 chains of which nothing is left, u16 tuples to delete, u16 tuples that get the
    number of their chain's head, u16 links to change, at 8 the state, at 16 the numbers of the
    ones, of the second, from where and then to where the third move, of the tuples whose link
    changes, and of those that follow them from now on.
    """
    page = part.page
    source = part.bytes
    main = _main_data(part, 16)
    dead = coding.u16(source, main)
    deleted = coding.u16(source, main + 2)
    moved = coding.u16(source, main + 4)
    chained = coding.u16(source, main + 6)
    if part.block_id != 0:
        return _unexpected_block()
    at = main + 16
    if at + 2 * (dead + deleted + 2 * moved + 2 * chained) > _main_end(part):
        raise ValueError("spgist record whose main data is too short")
    pages.check(page)
    pages.delete(part, at, dead, pages.DEAD, pages.DEAD, 0, 0, 0)
    at += 2 * dead
    pages.delete(part, at, deleted, pages.PLACEHOLDER, pages.PLACEHOLDER, 0, 0, 0)
    at += 2 * deleted
    for i in range(moved):
        pages.swap(page, coding.u16(source, at + 2 * i), coding.u16(source, at + 2 * (moved + i)))
    pages.delete(part, at, moved, pages.PLACEHOLDER, pages.PLACEHOLDER, 0, 0, 0)
    at += 4 * moved
    for i in range(chained):
        following = coding.u16(source, at + 2 * (chained + i))
        pages.chain(page, coding.u16(source, at + 2 * i), following)
    return 0


def _vacuum_root(part):
    """VACUUM removes tuples from a root that is a leaf, which has no chains (spgRedoVacuumRoot).

    Main data: u16 tuples to delete, padding, at 4 the state, at 12 their numbers, rising.
    """
    source = part.bytes
    numbers = part.numbers
    main = _main_data(part, 12)
    count = coding.u16(source, main)
    if part.block_id != 0:
        return _unexpected_block()
    pages.check(part.page)
    if count > 2048 or main + 12 + 2 * count > _main_end(part):
        raise ValueError("spgist record whose main data is too short")
    for i in range(count):
        numbers[i] = coding.u16(source, main + 12 + 2 * i)
    return index_tuples.multi_delete(part.page, numbers, count)


def _vacuum_redirect(part):
    """VACUUM ends redirections that nobody can meet any more (spgRedoVacuumRedirect).

    Main data: u16 redirections that become placeholders, u16 number from which on there are only
    placeholders, 0 if the last tuple is none, u32 newest transaction of the redirections; from 16
    on u8 whether the table is a catalog, a byte of padding; their numbers.
    """
    page = part.page
    source = part.bytes
    head = 10 if part.version >= 16 else 8
    main = _main_data(part, head)
    count = coding.u16(source, main)
    first = coding.u16(source, main + 2)
    if part.block_id != 0:
        return _unexpected_block()
    if main + head + 2 * count > _main_end(part):
        raise ValueError("spgist record whose main data is too short")
    pages.check(page)
    for i in range(count):
        pages.end_redirection(page, coding.u16(source, main + head + 2 * i))
    if first != 0:
        pages.cut_placeholders(part, first)
    return 0
