# cython: annotation_typing=False, wraparound=False, initializedcheck=False, boundscheck=False
"""One WAL record: its bytes into columns.

    record header   24 bytes: length u32 | xid u32 | previous record's LSN u64 | info u8 | rmgr u8
                    | 2 bytes of padding | CRC-32C u32, over the rest of the record, then these 20
    fragment headers, in this order, no padding:
      0..32         a block reference: id u8 | flags u8 | data length u16
                    image header, if flags & IMAGE: length u16 | hole offset u16 | image info u8
                                                    | hole length u16, if compressed with a hole
                    tablespace, database, relfilenumber 3 x u32, unless flags & SAME_RELATION
                    block u32
      253           replication origin u16
      252           top-level xid u32
      255 or 254    main data: length u8 or u32; always the last
    the fragments   for each reference its image, then its data; the main data last

The hole is a run of zeros in the middle of a page that images leave out. Columns hold positions
into the bytes, never copies. Image info is given as 15 and later write it; 14 numbers its bits
otherwise.

Bounds checks are off for columns, which is a quarter of the time: their lengths never change after
they are allocated, and `parse` checks at its entry that there is room for one record and as many
references as a record can have. It also checks that the record is inside of the bytes; and before
anything is read from the record, that it is inside of the record: that check is needed anyway.
"""

from array import array

from formats import coding, crc

HEADER_BYTES = 24
CRC_POS = 20
LENGTH_MAX = 1 << 30
REFERENCES_MAX = 33  # of one record: ids 0 to 32

# Flags of a block reference, beside the fork in the low four bits.
FORK_MASK = 0x0F
IMAGE = 0x10
DATA = 0x20
WILL_INIT = 0x40
SAME_RELATION = 0x80

# Image info, as in 15 and later.
HAS_HOLE = 1
APPLY = 2
PGLZ = 4
LZ4 = 8
ZSTD = 16
COMPRESSED = PGLZ | LZ4 | ZSTD

PAGE_BYTES = 8192
FORK_MAX = 3

# What `parse` may find wrong, and what should have been.
CHECKSUM, CUT_OFF, LEFT_OVER, FRAGMENT, ORDER, FORK, DATA_FLAG, RELATION = range(1, 9)
IMAGE_INFO, IMAGE_LENGTH, HOLE = range(9, 12)
FAULTS = {
    CHECKSUM: ("CRC-32C of the WAL record", "what it comes to"),
    CUT_OFF: ("length of the record's fragments", "no more than the record's own"),
    LEFT_OVER: ("length of the record's fragments", "exactly the record's own"),
    FRAGMENT: ("fragment of the record", "id 0..32 or 252..255"),
    ORDER: ("id of the block reference", "ids in rising order"),
    FORK: ("fork of the block reference", "0..3"),
    DATA_FLAG: ("data length of the block reference", "non-zero if and only if its flag says so"),
    RELATION: ("relation of the block reference", "one before it that it can be the same as"),
    IMAGE_INFO: ("image info of the block reference", "known bits, one compression at most"),
    IMAGE_LENGTH: ("image length of the block reference", "what its image info and hole imply"),
    HOLE: ("hole of the image of the block reference", "to be inside of the page, if and only if "
           "its flag says so"),
}  # fmt: skip


def column(typecode, length):
    """`length` zeros of a type that module array knows, as a view."""
    return memoryview(array(typecode, bytes(array(typecode).itemsize * length)))


class RecordColumns:
    """Parsed records, one row each, and their block references, one row each, in columns.

    Record r has the references first_reference[r] .. first_reference[r + 1]. Positions are offsets
    into `data`, the buffer with the records' bytes, which is set before `parse`. So may be `soon`
    and `soon_pos`: a buffer, and where in it the CPU shall fetch as many bytes as the record has
    while its CRC is computed, because they will be decoded soon.
    """

    def __init__(self, records_max, references_max):
        if records_max < 1 or references_max < REFERENCES_MAX:
            raise ValueError("a batch needs room for a record and the references that it may have")
        self.data = memoryview(b"")
        self.soon = self.data
        self.soon_pos = 0
        self.records_max = records_max
        self.references_max = references_max
        self.record_pos = column("I", records_max)
        self.record_length = column("I", records_max)
        self.rmgr = column("B", records_max)
        self.info = column("B", records_max)
        self.xid = column("I", records_max)
        self.origin = column("H", records_max)
        self.main_pos = column("I", records_max)
        self.main_length = column("I", records_max)
        self.first_reference = column("I", records_max + 1)
        self.ref_id = column("B", references_max)
        self.ref_flags = column("B", references_max)
        self.ref_spc = column("I", references_max)
        self.ref_db = column("I", references_max)
        self.ref_rel = column("I", references_max)
        self.ref_block = column("I", references_max)
        self.ref_data_pos = column("I", references_max)
        self.ref_data_length = column("I", references_max)
        self.ref_image_pos = column("I", references_max)
        self.ref_image_length = column("I", references_max)
        self.ref_hole_offset = column("H", references_max)
        self.ref_hole_length = column("H", references_max)
        self.ref_image_info = column("B", references_max)
        self.count = 0
        self.reference_count = 0
        self.fault_about = 0
        self.fault_found = 0

    def clear(self):
        self.count = 0
        self.reference_count = 0


def describe(fault: int, about: int, found: int) -> tuple[str, str, str]:
    """What, expected and found, of a fault that `parse` returned, with its fault_about and _found.

    `about` is the id of the block reference, of a CRC what it should be.
    """
    what, expected = FAULTS[fault]
    if fault == CHECKSUM:
        return what, f"{about:#010x}", f"{found:#010x}"
    if fault >= ORDER:
        what = f"{what} {about}"
    return what, expected, str(found)


def _header(columns, record, pos, length):
    """What a record's header says, into the columns."""
    columns.record_pos[record] = pos
    columns.record_length[record] = length
    columns.xid[record] = coding.u32_checked_before(columns.data, pos + 4)
    columns.info[record] = coding.u8_checked_before(columns.data, pos + 16)
    columns.rmgr[record] = coding.u8_checked_before(columns.data, pos + 17)
    columns.origin[record] = 0
    return 0


def parse(columns, pos, length, version):
    """Append the record of `length` bytes at `pos` in columns.data to the columns.

    Returns 0; or a fault, and then the columns are as before, and `describe` says what it is with
    their `fault_about` and `fault_found`. The caller has checked that there is room. `version` is
    PostgreSQL's major version.
    """
    record = columns.count
    reference = columns.reference_count
    if record >= columns.records_max or reference + REFERENCES_MAX > columns.references_max:
        raise IndexError("no room for another record in the batch")
    if pos < 0 or length < HEADER_BYTES or pos + length > columns.data.shape[0]:
        raise IndexError("record out of bounds")
    stored = coding.u32_checked_before(columns.data, pos + CRC_POS)
    computed = crc.of_two(columns.data, pos + HEADER_BYTES, length - HEADER_BYTES, pos, CRC_POS,
                          columns.soon, columns.soon_pos)  # fmt: skip
    if stored != computed:
        return -_fault(columns, computed, CHECKSUM, stored)
    end = pos + length
    _header(columns, record, pos, length)
    columns.first_reference[record] = reference
    main_length = 0
    fragments = 0  # bytes that the fragment headers so far announce
    pos += HEADER_BYTES
    while end - pos > fragments:
        fragment = coding.u8_checked_before(columns.data, pos)
        if fragment < REFERENCES_MAX:
            size = _reference(columns, reference, pos, end, version)
            if size < 0:
                return -size
            fragments += columns.ref_data_length[reference] + columns.ref_image_length[reference]
            reference += 1
        elif fragment == 255 and pos + 2 <= end:
            size = 2
            main_length = coding.u8_checked_before(columns.data, pos + 1)
        elif fragment == 254 and pos + 5 <= end:
            size = 5
            main_length = coding.u32_checked_before(columns.data, pos + 1)
        elif fragment == 253 and pos + 3 <= end:
            size = 3
            columns.origin[record] = coding.u16_checked_before(columns.data, pos + 1)
        elif fragment == 252 and pos + 5 <= end:
            size = 5
        else:
            return -_fault(columns, 0, FRAGMENT if fragment < 252 else CUT_OFF, fragment)
        pos += size
        if fragment >= 254:
            fragments += main_length
            break
    if end - pos != fragments:
        fault = CUT_OFF if end - pos < fragments else LEFT_OVER
        return -_fault(columns, 0, fault, fragments)
    _place_fragments(columns, columns.reference_count, reference, pos)
    columns.main_pos[record] = end - main_length
    columns.main_length[record] = main_length
    columns.reference_count = reference
    columns.count = record + 1
    columns.first_reference[record + 1] = reference
    return 0


def _place_fragments(columns, first, end, pos):
    """Give the references first .. end their fragments, which begin at `pos`."""
    for reference in range(first, end):
        columns.ref_image_pos[reference] = pos
        pos += columns.ref_image_length[reference]
        columns.ref_data_pos[reference] = pos
        pos += columns.ref_data_length[reference]
    return 0


def _reference(columns, reference, pos, end, version):
    """Parse one block reference's header; returns its size, or minus a fault."""
    first = columns.reference_count
    start = pos
    if pos + 4 > end:
        return _fault(columns, 0, CUT_OFF, end - pos)
    block_id = coding.u8_checked_before(columns.data, pos)
    flags = coding.u8_checked_before(columns.data, pos + 1)
    data_length = coding.u16_checked_before(columns.data, pos + 2)
    if reference > first and block_id <= columns.ref_id[reference - 1]:
        return _fault(columns, block_id, ORDER, block_id)
    if (flags & FORK_MASK) > FORK_MAX:
        return _fault(columns, block_id, FORK, flags & FORK_MASK)
    if (data_length != 0) != ((flags & DATA) != 0):
        return _fault(columns, block_id, DATA_FLAG, data_length)
    columns.ref_id[reference] = block_id
    columns.ref_flags[reference] = flags
    columns.ref_data_length[reference] = data_length
    columns.ref_image_length[reference] = 0
    columns.ref_hole_offset[reference] = 0
    columns.ref_hole_length[reference] = 0
    columns.ref_image_info[reference] = 0
    pos += 4
    if flags & IMAGE:
        size = _image(columns, reference, pos, end, version)
        if size < 0:
            return size
        pos += size
    if pos + (4 if flags & SAME_RELATION else 16) > end:
        return _fault(columns, block_id, CUT_OFF, end - start)
    if flags & SAME_RELATION:
        if reference == first:
            return _fault(columns, block_id, RELATION, 0)
        columns.ref_spc[reference] = columns.ref_spc[reference - 1]
        columns.ref_db[reference] = columns.ref_db[reference - 1]
        columns.ref_rel[reference] = columns.ref_rel[reference - 1]
    else:
        columns.ref_spc[reference] = coding.u32_checked_before(columns.data, pos)
        columns.ref_db[reference] = coding.u32_checked_before(columns.data, pos + 4)
        columns.ref_rel[reference] = coding.u32_checked_before(columns.data, pos + 8)
        pos += 12
    columns.ref_block[reference] = coding.u32_checked_before(columns.data, pos)
    return pos + 4 - start


def _image(columns, reference, pos, end, version):
    """Parse an image header; returns its size, or minus a fault."""
    block_id = columns.ref_id[reference]
    if pos + 7 > end:  # the longest; a block number follows it
        return _fault(columns, block_id, CUT_OFF, end - pos)
    length = coding.u16_checked_before(columns.data, pos)
    hole_offset = coding.u16_checked_before(columns.data, pos + 2)
    info = coding.u8_checked_before(columns.data, pos + 4)
    if version == 14:
        if info > 7:
            return _fault(columns, block_id, IMAGE_INFO, info)
        # 14: 1 has a hole, 2 compressed (pglz it was), 4 apply.
        info = (info & HAS_HOLE) | (PGLZ if info & 2 else 0) | (APPLY if info & 4 else 0)
    compression = info & COMPRESSED
    if info > 31 or compression & (compression - 1):
        return _fault(columns, block_id, IMAGE_INFO, info)
    size = 5
    hole_length = 0
    if compression:
        if info & HAS_HOLE:
            size = 7
            hole_length = coding.u16_checked_before(columns.data, pos + 5)
        if length == 0 or length >= PAGE_BYTES:
            return _fault(columns, block_id, IMAGE_LENGTH, length)
    else:
        if length > PAGE_BYTES or (length != PAGE_BYTES) != ((info & HAS_HOLE) != 0):
            return _fault(columns, block_id, IMAGE_LENGTH, length)
        hole_length = PAGE_BYTES - length
    if info & HAS_HOLE:
        if hole_offset == 0 or hole_length == 0 or hole_offset + hole_length > PAGE_BYTES:
            return _fault(columns, block_id, HOLE, hole_length)
    elif hole_offset != 0:
        return _fault(columns, block_id, HOLE, hole_offset)
    columns.ref_image_length[reference] = length
    columns.ref_hole_offset[reference] = hole_offset
    columns.ref_hole_length[reference] = hole_length
    columns.ref_image_info[reference] = info
    return size


def _fault(columns, about, fault, found):
    columns.fault_about = about
    columns.fault_found = found
    return -fault
