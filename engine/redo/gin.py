# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Redo of GIN records, resource manager 13: one function for each opcode.

They do what the functions named in parentheses do in access/gin/ginxlog.c of PostgreSQL 15.18,
17.11 and 18.6; records are laid out as access/ginxlog.h says. Both are the same in 14 to 18.

Every record sets pd_lsn of every block that it names. Pages which a record makes anew are marked
so in WAL; no other record meets a page that was never written.

The pages that a split makes, and a leaf of the entry tree after VACUUM, come as images in every
record (REGBUF_FORCE_IMAGE): without one they are an error, as in PostgreSQL.
"""

from engine.redo import gin_data as leaves
from engine.redo import gin_page as pages
from formats import coding, index_tuples
from formats import page as layout

CREATE_POSTING_TREE = 0x10
INSERT = 0x20
SPLIT = 0x30
VACUUM_PAGE = 0x40
DELETE_PAGE = 0x50
UPDATE_META_PAGE = 0x60
INSERT_LIST_PAGE = 0x70
DELETE_LIST_PAGES = 0x80
VACUUM_DATA_LEAF_PAGE = 0x90

# Flags of INSERT and SPLIT.
IS_DATA = 1
IS_LEAF = 2


def redo(part):
    """Bring part.page to its state after the record; 1: its pd_lsn is to be set (gin_redo)."""
    info = part.info & 0xF0
    if info == INSERT:
        _insert(part)
    elif info == UPDATE_META_PAGE:
        _update_meta_page(part)
    elif info == INSERT_LIST_PAGE:
        _insert_list_page(part)
    elif info == DELETE_LIST_PAGES:
        _delete_list_pages(part)
    elif info == SPLIT:
        _split(part)
    elif info == CREATE_POSTING_TREE:
        _create_posting_tree(part)
    elif info == VACUUM_DATA_LEAF_PAGE:
        _vacuum_data_leaf_page(part)
    elif info == DELETE_PAGE:
        _delete_page(part)
    elif info == VACUUM_PAGE:
        raise ValueError("gin record without the page image that it must have")
    else:
        raise ValueError("gin record of an unknown opcode")
    return 1


def _main_data(part, length):
    """Where the main data starts, which must have `length` bytes."""
    if part.main_length < length:
        raise ValueError("gin record whose main data is too short")
    return part.main


def _unexpected_block():
    raise ValueError("gin record with a block that its opcode does not have")


def _create_posting_tree(part):
    """A key's TIDs no longer fit its tuple and get a tree (ginRedoCreatePTree).

    Main data: u32 length of the segments; the segments of its only page.
    """
    if part.block_id != 0:
        return _unexpected_block()
    length = coding.u32(part.bytes, _main_data(part, 4))
    if length != part.main_length - 4:
        raise ValueError("gin posting tree whose segments do not fill its record")
    return leaves.start(part.page, part.bytes, part.main + 4, length)


def _insert(part):
    """Something more on a page that has room for it (ginRedoInsert).

    Main data: u16 flags; above the leaves two blocks of 4 bytes (high half u16, low half u16), the
    halves of a split below, which this completes: block 1 is the left one.
    """
    flags = coding.u16(part.bytes, _main_data(part, 2))
    if flags & IS_LEAF == 0:
        _main_data(part, 10)
        if part.block_id == 1:
            return pages.clear_incomplete_split(part.page)
    if part.block_id != 0:
        return _unexpected_block()
    if flags & IS_DATA == 0:
        return _insert_entry(part, flags)
    if flags & IS_LEAF:
        return leaves.recompress(part)
    return _insert_downlink(part)


def _insert_entry(part, flags):
    """A tuple more in the entry tree, or another in place of one (ginRedoInsertEntry).

    Data: u16 number, u8 whether the tuple of that number goes, u8 0; the tuple. Above the leaves
    the tuple of that number led to the page that was split: now it leads to the right half.
    """
    page = part.page
    source = part.bytes
    end = part.data + part.data_length
    pages.check_tree_page(page, flags & IS_LEAF)
    if part.data_length < 12:
        raise ValueError("gin insertion without a tuple")
    number = coding.u16(source, part.data)
    if flags & IS_LEAF == 0:
        place = layout.item_offset(page, number)
        coding.copy(page, place, source, part.main + 6, 4)
        coding.put_u16(page, place + 4, 0)
    if coding.u8(source, part.data + 2) != 0:
        if flags & IS_LEAF == 0:
            raise ValueError("gin insertion that replaces a downlink")
        index_tuples.delete(page, number)
    if pages.add_tuple(page, source, part.data + 4, end, number) != part.data_length - 4:
        raise ValueError("gin insertion with more than a tuple")
    return 0


def _insert_downlink(part):
    """A downlink more in a posting tree (ginRedoInsertData). Data: u16 number, the downlink."""
    pages.check_tree_page(part.page, pages.DATA)
    if part.data_length != 12:
        raise ValueError("gin insertion whose data is not a downlink")
    number = coding.u16(part.bytes, part.data)
    return pages.insert_downlink(part.page, number, part.bytes, part.data + 2, part.main + 6)


def _split(part):
    """A page's content went to two pages (ginRedoSplit).

    Main data: u32 tablespace, database, relation, right link, left child, right child, u16 flags.
    Blocks 0 to 2 come as images; above the leaves the split below, at block 3, is complete now.
    """
    if part.block_id < 3:
        raise ValueError("gin record without the page image that it must have")
    flags = coding.u16(part.bytes, _main_data(part, 26) + 24)
    if part.block_id != 3 or flags & IS_LEAF:
        return _unexpected_block()
    return pages.clear_incomplete_split(part.page)


def _vacuum_data_leaf_page(part):
    """VACUUM took TIDs out of a posting tree's leaf (ginRedoVacuumDataLeafPage)."""
    if part.block_id != 0:
        return _unexpected_block()
    return leaves.recompress(part)


def _delete_page(part):
    """VACUUM took an empty page out of a posting tree (ginRedoDeletePage).

    Main data: u16 number of its downlink, u16 0, u32 its right link, u32 next transaction's number:
    when no older one runs the page may be used again. Blocks: the page, its parent, its left
    sibling. The page keeps what it holds, its right link above all, for those who are on it.
    """
    page = part.page
    source = part.bytes
    main = _main_data(part, 12)
    if part.block_id > 2:
        return _unexpected_block()
    if part.block_id == 1:
        pages.check_tree_page(page, pages.DATA)
        return pages.delete_downlink(page, coding.u16(source, main))
    pages.check_data(page)
    if part.block_id == 2:
        return coding.copy(page, pages.RIGHT_LINK, source, main + 4, 4)
    coding.copy(page, 20, source, main + 8, 4)
    return pages.set_flags(page, pages.DELETED)


def _update_meta_page(part):
    """The pending list grew, or VACUUM counted pages (ginRedoUpdateMetapage).

    Main data: u32 tablespace, database, relation, 4 bytes; 56 bytes of the meta page; u32 the
    list's last page so far, u32 what becomes its right link, i32 number of tuples. Block 1, if any,
    is that last page: it gets the tuples in its data, or if there are none the right link.
    """
    page = part.page
    source = part.bytes
    main = _main_data(part, 84)
    if part.block_id == 0:
        return pages.start_meta(page, source, main + 16)
    if part.block_id != 1:
        return _unexpected_block()
    count = coding.u32(source, main + 80)
    pages.check(page)
    if count == 0:
        return coding.copy(page, pages.RIGHT_LINK, source, main + 76, 4)
    _append_tuples(part, count)
    return coding.put_u16(page, pages.COUNT, coding.u16(page, pages.COUNT) + 1)


def _insert_list_page(part):
    """A page more for the pending list (ginRedoInsertListPage).

    Main data: u32 right link, i32 number of tuples. Data: the tuples. One heap tuple fills all the
    pages that are added at once, and counts for the last.
    """
    page = part.page
    main = _main_data(part, 8)
    if part.block_id != 0:
        return _unexpected_block()
    pages.start(page, pages.LIST)
    coding.copy(page, pages.RIGHT_LINK, part.bytes, main, 4)
    if pages.is_last(page):
        pages.set_flags(page, pages.LIST_FULL_ROW)
        coding.put_u16(page, pages.COUNT, 1)
    return _append_tuples(part, coding.u32(part.bytes, main + 4))


def _append_tuples(part, count):
    end = part.data + part.data_length
    return pages.append_tuples(part.page, part.bytes, part.data, end, count)


def _delete_list_pages(part):
    """The head of the pending list went into the trees (ginRedoDeleteListPages).

    Main data: 56 bytes of the meta page; i32 number of pages, which are blocks 1 and following.
    """
    source = part.bytes
    main = _main_data(part, 60)
    if part.block_id == 0:
        return pages.start_meta(part.page, source, main)
    if part.block_id > coding.u32(source, main + 56):
        return _unexpected_block()
    return pages.start(part.page, pages.DELETED)
