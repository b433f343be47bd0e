# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Redo of BRIN index records, resource manager 17: one function for each opcode.

They do what the functions named in parentheses do in access/brin/brin_xlog.c of PostgreSQL 15.18,
17.11 and 18.6; records are laid out as access/brin_xlog.h says (all the same in these). An index
has three kinds of pages, told apart by the u16 at their end (access/brin_page.h):

    meta page      0xF091  24 u32 0xA8109CFA, 28 u32 version, 32 u32 heap pages in a range,
                           36 u32 last block of the revmap
    revmap page    0xF092  from 24 on 1360 TIDs, one a range: where its summary is; all zeros or
                           number 0 where there is none
    regular page   0xF093  line pointers and tuples, the summaries

A TID is a block, high half u16, low half u16, and a line pointer's number u16. A summary keeps its
number while others of its page go: their line pointers stay behind unused.

Every byte of the page ends up as PostgreSQL's redo leaves it, but for pd_checksum. Where a record
does not fit the page an error is raised and the page, changed halfway, is not to be used.
"""

from formats import coding, index_tuples
from formats import page as layout

CREATE_INDEX = 0x00
INSERT = 0x10
UPDATE = 0x20
SAMEPAGE_UPDATE = 0x30
REVMAP_EXTEND = 0x40
DESUMMARIZE = 0x50
INIT_PAGE = 0x80  # with INSERT and UPDATE: block 0 is a new page

META = 0xF091
REVMAP = 0xF092
REGULAR = 0xF093


def redo(part):
    """Bring part.page to its state after the record; 1: its pd_lsn is to be set (brin_redo)."""
    info = part.info & 0x70
    if info == INSERT:
        _insert(part, _main_data(part, 10))
    elif info == SAMEPAGE_UPDATE:
        _samepage_update(part)
    elif info == UPDATE:
        _update(part)
    elif info == CREATE_INDEX:
        _create_index(part)
    elif info == REVMAP_EXTEND:
        _revmap_extend(part)
    elif info == DESUMMARIZE:
        _desummarize(part)
    else:
        raise ValueError("BRIN record of an unknown opcode")
    return 1


def _main_data(part, length):
    """Where the main data starts, which must have `length` bytes."""
    if part.main_length < length:
        raise ValueError("BRIN record whose main data is too short")
    return part.main


def _unexpected_block():
    raise ValueError("BRIN record with a block that its opcode does not have")


def _check(page, kind):
    """Refuse a page that is not of this kind."""
    if len(page) != 8192 or coding.u16(page, 16) != 8184 or coding.u16(page, 8190) != kind:
        raise ValueError("BRIN page of another kind than its record says")
    return 0


def _start(page, kind):
    """Make it an empty page (brin_page_init, brin_pageops.c)."""
    layout.init(page, 8)
    return coding.put_u16(page, 8190, kind)


def _create_index(part):
    """The meta page (brin_xlog_createidx). Main data: u32 heap pages in a range, u16 version."""
    page = part.page
    main = _main_data(part, 6)
    if part.block_id != 0:
        return _unexpected_block()
    _start(page, META)
    coding.put_u16(page, 12, 40)
    coding.put_u16(page, 24, 0x9CFA)
    coding.put_u16(page, 26, 0xA810)
    coding.put_u32(page, 28, coding.u16(part.bytes, main + 4))
    return coding.copy(page, 32, part.bytes, main, 4)


def _insert(part, main):
    """A summary more: block 0; the revmap names it: block 1 (brin_xlog_insert_update).

    At `main`: u32 first heap block, u32 heap pages in a range, u16 number in the page. Data of
    block 0: the summary.
    """
    page = part.page
    source = part.bytes
    number = coding.u16(source, main + 8)
    if part.block_id == 1:
        block = part.block(0)
        if block < 0 or number == 0:
            raise ValueError("BRIN insertion that does not say where")
        return _set_summary(
            part, coding.u32(source, main + 4), coding.u32(source, main), block, number
        )
    if part.block_id != 0:
        return _unexpected_block()
    if part.info & INIT_PAGE:
        _start(page, REGULAR)
    _check(page, REGULAR)
    if (
        number == 0
        or layout.add_item(page, source, part.data, part.data_length, number, True, False) == 0
    ):
        raise ValueError("BRIN summary does not fit the page")
    return 0


def _update(part):
    """A summary moves: it goes from block 2, then all as in INSERT (brin_xlog_update).

    Main data: u16 number in the old page, u16 nothing, then what INSERT has.
    """
    main = _main_data(part, 14)
    if part.block_id == 2:
        _check(part.page, REGULAR)
        return index_tuples.delete_no_compact(part.page, coding.u16(part.bytes, main))
    return _insert(part, main + 4)


def _samepage_update(part):
    """A summary changes where it is (brin_xlog_samepage_update). Main data: u16 its number."""
    source = part.bytes
    number = coding.u16(source, _main_data(part, 2))
    if part.block_id != 0:
        return _unexpected_block()
    _check(part.page, REGULAR)
    if index_tuples.overwrite(part.page, number, source, part.data, part.data_length) == 0:
        raise ValueError("BRIN summary does not fit the page")
    return 0


def _revmap_extend(part):
    """A page more in the revmap: block 1 (brin_xlog_revmap_extend). Main data: u32 its number.

    The meta page, block 0, gets its pd_lower right as well: before 11 it was not.
    """
    page = part.page
    main = _main_data(part, 4)
    if part.block_id == 1:
        return _start(page, REVMAP)
    if part.block_id != 0:
        return _unexpected_block()
    _check(page, META)
    coding.copy(page, 36, part.bytes, main, 4)
    return coding.put_u16(page, 12, 40)


def _desummarize(part):
    """A range loses its summary (brin_xlog_desummarize_page): revmap, block 0; summary, block 1.

    Main data: u32 heap pages in a range, u32 first heap block, u16 number in the regular page.
    """
    source = part.bytes
    main = _main_data(part, 10)
    if part.block_id == 0:
        return _set_summary(part, coding.u32(source, main), coding.u32(source, main + 4), -1, 0)
    if part.block_id != 1:
        return _unexpected_block()
    _check(part.page, REGULAR)
    return index_tuples.delete_no_compact(part.page, coding.u16(source, main + 8))


def _set_summary(part, pages_per_range, heap_block, block, number):
    """Say in the revmap where a range's summary is (brinSetHeapBlockItemptr, brin_revmap.c)."""
    page = part.page
    _check(page, REVMAP)
    if pages_per_range == 0:
        raise ValueError("BRIN record of ranges of no pages")
    pos = 24 + 6 * (heap_block // pages_per_range % 1360)
    coding.put_u16(page, pos, block >> 16)
    coding.put_u16(page, pos + 2, block)
    return coding.put_u16(page, pos + 4, number)
