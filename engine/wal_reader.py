# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""WAL bytes in any chunking -> whole records, in column batches.

    reader.feed(lsn, data)      takes WAL bytes (engine/wal_buffer.py strips the page headers)
    reader.decode(batch)        checks pages and records, fills the batch; returns how many

`feed` takes what continues exactly where the last call ended, cut anywhere: inside a page header,
inside a record. `decode` is called until it returns 0; what is left then is a partial record at
most. `feed` copies nothing: what it was given must not change before `decode` returned 0, or
before the next `feed`. `decode` takes it over page by page, into a buffer that fits into the CPU's
cache: so a batch is valid until the next `decode` or `feed`, and may have fewer records than it has
room for. `decode` runs without the GIL; a reader is for one thread at a time.

    lsn         where the next `feed` must begin
    end_lsn     where the record after the last decoded one starts: page headers, padding, the rest
                of a switched segment and records never finished are skipped (lsn_end of the last
                record, which redo writes into pd_lsn, is lower when that fills its page)
    pending     whether there are bytes left that are no whole record; ask when decode returned 0
    at_end      the WAL of a file ends here: zeros where a record should be (`zeros_end` only)

Every page header is validated when decode comes to it and not before: behind an XLOG_SWITCH record,
up to the end of its segment, there are no pages. Damage is a CorruptionError with LSN, expected and
found. It is raised after all records before it have been handed out, and again by every later
call; `end_lsn` stays where all was good.
"""

import cython

from engine.wal_buffer import WalBuffer
from engine.wal_fault import (
    ADDRESS,
    CONTINUATION,
    FLAGS,
    LENGTH,
    MAGIC,
    NO_CONTINUATION,
    OVERWRITTEN,
    PAGE_SIZE,
    PREVIOUS,
    PREVIOUS_AHEAD,
    RECORD,
    REMAINING,
    RMGR,
    SEGMENT_SIZE,
    SYSTEM,
    TIMELINE_AHEAD,
    TIMELINE_BACK,
    VERSION,
    ZEROS,
    explain,
)
from formats import coding, postgres_versions, wal_page, wal_record
from formats import lsn as lsns
from formats.errors import CorruptionError
from formats.wal_page import PageHeader

PAGE_BYTES = 8192
HEADER_BYTES = 40  # apart in WalBuffer.headers
AHEAD = 20480  # bytes from what is decoded to what the CPU is asked for: two pages and a half
RECORDS_ALL = 0x7FFFFFFF
NOTHING = memoryview(b"")

# Opcodes of the resource manager XLOG, which is number 0.
SWITCH = 0x40
OVERWRITE_CONTRECORD = 0xD0

# What `_frame` and its parts answer.
NOT_YET, AGAIN, WHOLE = range(3)


class WalReader:
    """Reads WAL from `start_lsn`, where a record or a segment starts.

    A segment's first page may begin in the middle of a record; what is left of that is skipped.
    `system_identifier`, `timeline` and `version` (PostgreSQL's major) are checked where given. A
    start inside a page needs the version: otherwise only a page header tells it. Pages may be of
    older timelines than `timeline`, but not of an older one than the page before.
    """

    def __init__(self, start_lsn, segment_size, system_identifier=None, timeline=None,
                 version=None, zeros_end=False):  # fmt: skip
        if not lsns.is_segment_size(segment_size):
            raise ValueError(f"there are no WAL segments of {segment_size} bytes")
        in_page = start_lsn % PAGE_BYTES
        header_bytes = lsns.header_bytes(start_lsn - in_page, segment_size)
        if start_lsn < PAGE_BYTES or in_page % 8 or 0 < in_page < header_bytes:
            raise ValueError(f"no WAL record can start at {lsns.show(start_lsn)}")
        if version is not None and wal_page.magic(version) == 0:
            known = postgres_versions.NAMED
            raise ValueError(f"WAL of PostgreSQL {version} cannot be read, only that of {known}")
        if in_page and version is None:
            raise ValueError("a start inside a WAL page needs PostgreSQL's major version")
        self.segment_size = segment_size
        self.system_identifier = system_identifier or 0
        self.timeline = timeline or 0
        self.version = version or 0
        self.zeros_end = zeros_end
        self.at_end = False
        self.end_lsn = lsns.record_start(start_lsn, segment_size)
        self.previous_lsn = 0  # of the last record; 0 where it is not known
        self.dropped_lsn = 0  # of a record that was not continued, until its replacement comes
        self.page_timeline = 0
        self.in_step = start_lsn % segment_size != 0  # know where records start
        self.rest_to_skip = 0
        self.behind_switch = False  # as far as can be told from the rest of a record
        self.wal = WalBuffer(start_lsn, segment_size)
        self.head = 0  # position in wal.data of the first byte that is not decoded,
        self.page = 0  # the page it is in or at the end of,
        self.checked = 1  # and how many pages of the table need not be checked any more
        self.header = PageHeader()
        self.fault = 0

    @property
    def lsn(self):
        return self.wal.lsn + self.wal.left()

    @property
    def pending(self):
        return self.wal.filled > self.head and not self.at_end

    def feed(self, lsn, data):
        """Take the WAL bytes that begin at `lsn`, which is where the last call's ended."""
        if self.fault:
            raise self._error()
        if lsn != self.lsn or self.at_end:
            expected = "no more after its end" if self.at_end else lsns.show(self.lsn)
            raise CorruptionError("WAL that comes next", f"LSN {lsns.show(self.lsn)}",
                                  expected, lsns.show(lsn))  # fmt: skip
        self._make_room(self.wal.left())
        while self.wal.left():  # fed again before all was decoded
            self.wal.pull()
        self.wal.offer(data)

    def _make_room(self, length):
        """Forget what is decoded; make room for that many bytes, or as many as one `pull` takes."""
        self.wal.make_room(self.head, self.page, length)
        self.checked -= self.page
        self.head = 0
        self.page = 0

    def decode(self, batch, records_max=RECORDS_ALL):
        """Fill the batch with the next whole records, at most `records_max`; returns how many."""
        batch.clear()
        batch.soon = self.wal.source
        is_full = True
        while is_full and batch.count == 0:
            batch.data = self.wal.data
            with cython.nogil:
                is_full = self._decode(batch, records_max)
            if is_full and batch.count == 0:
                self._make_room(0)
        batch.soon = NOTHING
        if batch.count == 0:
            if self.fault:
                raise self._error()
            if self.wal.left() == 0:
                self.wal.offer(NOTHING)
        return batch.count

    def _error(self):
        return explain(self.fault, self.fault_lsn, self.fault_expected, self.fault_found)

    def _decode(self, batch, records_max):
        """Returns whether it stopped because there is no room to pull more."""
        if records_max > batch.records_max:
            records_max = batch.records_max
        while (
            self.fault == 0
            and batch.count < records_max
            and batch.reference_count + wal_record.REFERENCES_MAX <= batch.references_max
        ):
            framed = self._frame()
            if framed == WHOLE:
                self._take(batch)
            elif framed == NOT_YET:
                if self.fault or self.at_end or self.wal.left() == 0:
                    return False
                if not self.wal.has_room():
                    return True
                self.wal.pull()
        return False

    def _fault(self, fault, lsn, expected, found):
        """Note what is wrong; decoding goes no further. Answers NOT_YET for the caller."""
        self.fault = fault
        self.fault_lsn = lsn
        self.fault_expected = expected
        self.fault_found = found
        return NOT_YET

    def _end_or_fault(self, lsn):
        """Zeros where WAL should be."""
        if not self.zeros_end:
            return self._fault(ZEROS, lsn, 0, 0)
        self.at_end = True
        return NOT_YET

    def _frame(self):
        """See whether a whole record lies at `head`. AGAIN: `head` moved, look again."""
        if self.head == self.wal.page_end[self.page]:
            return self._enter_page()
        if self.wal.filled - self.head < 8:  # that many are always on the record's first page
            return NOT_YET
        length = coding.u32(self.wal.data, self.head)
        if length < wal_record.HEADER_BYTES or length > wal_record.LENGTH_MAX:
            lsn = self._lsn_at(self.head, self.page)
            if length == 0:
                if self.behind_switch:
                    self._skip_segment(lsn)
                    return AGAIN
                return self._end_or_fault(lsn)
            return self._fault(LENGTH, lsn, 0, length)
        end = self.head + length
        if end > self.wal.page_end[self.page]:
            framed = self._follow(end)
            if framed != WHOLE:
                return framed
        # With its padding, so that the next one can start.
        return WHOLE if ((end + 7) & ~7) <= self.wal.filled else NOT_YET

    def _enter_page(self):
        """Go to the first record of the next page."""
        page = self.page + 1
        if page >= self.wal.page_count or not self._check_page(page):
            return NOT_YET
        flags = coding.u16(self.wal.headers, HEADER_BYTES * page + 2)
        if not self.in_step and (flags & wal_page.CONTINUES or self.rest_to_skip):
            if not flags & wal_page.OVERWRITES:
                return self._skip_rest(page, flags)
        elif flags & wal_page.CONTINUES:
            return self._fault(CONTINUATION, self.wal.page_lsn[page], 0, flags)
        self.in_step = True
        self.rest_to_skip = 0
        self.page = page
        return AGAIN

    def _skip_rest(self, page, flags):
        """Skip the rest of a record that began before the start, as far as this page has it."""
        begin = self.wal.page_end[page - 1]
        lsn = self.wal.page_lsn[page]
        rest = coding.u32(self.wal.headers, HEADER_BYTES * page + 16)
        if not flags & wal_page.CONTINUES:
            return self._fault(NO_CONTINUATION, lsn, self.end_lsn, flags)
        if rest == 0 or (self.rest_to_skip and rest != self.rest_to_skip):
            return self._fault(REMAINING, lsn, self.rest_to_skip, rest)
        end = min(begin + ((rest + 7) & ~7), self.wal.page_end[page])
        if self.wal.filled < end:
            return NOT_YET
        self.in_step = begin + rest <= end
        self.behind_switch = (
            self.in_step and self.rest_to_skip == 0 and self._ends_switch(begin, rest)
        )
        self.rest_to_skip = 0 if self.in_step else rest - (end - begin)
        self.head = end
        self.page = page
        if self.in_step:
            self._end_at(self._lsn_at(end, page))
        return AGAIN

    def _ends_switch(self, begin, rest):
        """Whether the rest of a record that fills `begin` to its end may be that of XLOG_SWITCH.

        That is a record header alone, and starts at a multiple of 8: its last 8 bytes are here.
        They are not proof; but where zeros follow, either WAL ends or a switch was before them.
        """
        if rest != 8 and rest != 16:
            return False
        opcode = coding.u8(self.wal.data, begin + rest - 8) & 0xF0
        return opcode == SWITCH and coding.u8(self.wal.data, begin + rest - 7) == 0

    def _skip_segment(self, lsn):
        """Go to the end of the segment that `lsn` is in; a switch came before it."""
        end = (lsn + self.segment_size - 1) // self.segment_size * self.segment_size
        self.page = self.wal.skip_to(end, self.head, self.page)
        self.head = self.wal.page_end[self.page]
        self.checked = self.page + 1
        self.behind_switch = False
        self._end_at(end)
        return end

    def _follow(self, end):
        """Follow the record at `head` over its pages, up to `end` or as far as they are here."""
        page = self.page
        while self.wal.page_end[page] < end:
            page += 1
            if page >= self.wal.page_count or not self._check_page(page):
                return NOT_YET
            flags = coding.u16(self.wal.headers, HEADER_BYTES * page + 2)
            lsn = self.wal.page_lsn[page]
            if flags & wal_page.OVERWRITES:
                self.dropped_lsn = self._lsn_at(self.head, self.page)
                self.head = self.wal.page_end[page - 1]
                self.page = page - 1
                self._end_at(lsn)
                return AGAIN
            if not flags & wal_page.CONTINUES:
                start = self._lsn_at(self.head, self.page)
                return self._fault(NO_CONTINUATION, lsn, start, flags)
            rest = coding.u32(self.wal.headers, HEADER_BYTES * page + 16)
            if rest != end - self.wal.page_end[page - 1]:
                return self._fault(REMAINING, lsn, end - self.wal.page_end[page - 1], rest)
        return WHOLE

    def _check_page(self, page):
        """Validate the page's header, once; 0 if it is wrong, or the WAL ends here."""
        if page < self.checked:
            return 1
        lsn = self.wal.page_lsn[page]
        self.header.load(self.wal.headers, HEADER_BYTES * page)
        if self.header.magic == 0 and self.header.lsn == 0:
            return self._end_or_fault(lsn)
        if self.version == 0:
            self.version = wal_page.major_version(self.header.magic)
            if self.version == 0:
                return self._fault(VERSION, lsn, 0, self.header.magic)
        if self.header.magic != wal_page.magic(self.version):
            return self._fault(MAGIC, lsn, wal_page.magic(self.version), self.header.magic)
        is_long = (self.header.flags & wal_page.LONG_HEADER) != 0
        if self.header.flags > wal_page.ALL_FLAGS or is_long != (lsn % self.segment_size == 0):
            return self._fault(FLAGS, lsn, 0, self.header.flags)
        if self.header.lsn != lsn:
            return self._fault(ADDRESS, lsn, lsn, self.header.lsn)
        if self.header.timeline < self.page_timeline:
            return self._fault(TIMELINE_BACK, lsn, self.page_timeline, self.header.timeline)
        if self.timeline and self.header.timeline > self.timeline:
            return self._fault(TIMELINE_AHEAD, lsn, self.timeline, self.header.timeline)
        if is_long and not self._check_long_header(lsn):
            return 0
        self.page_timeline = self.header.timeline
        self.checked = page + 1
        return 1

    def _check_long_header(self, lsn):
        if self.system_identifier == 0:
            self.system_identifier = self.header.system_identifier
        if self.header.system_identifier != self.system_identifier:
            return self._fault(SYSTEM, lsn, self.system_identifier, self.header.system_identifier)
        if self.header.segment_size != self.segment_size:
            return self._fault(SEGMENT_SIZE, lsn, self.segment_size, self.header.segment_size)
        if self.header.page_size != PAGE_BYTES:
            return self._fault(PAGE_SIZE, lsn, PAGE_BYTES, self.header.page_size)
        return 1

    def _take(self, batch):
        """Check the whole record at `head`, append it to the batch and go behind it."""
        row = batch.count
        length = coding.u32(self.wal.data, self.head)
        previous = coding.u64(self.wal.data, self.head + 8)
        opcode = coding.u8(self.wal.data, self.head + 16) & 0xF0
        rmgr = coding.u8(self.wal.data, self.head + 17)
        lsn = self._lsn_at(self.head, self.page)
        if previous != self.previous_lsn and self.previous_lsn:
            return self._fault(PREVIOUS, lsn, self.previous_lsn, previous)
        if previous >= lsn:
            return self._fault(PREVIOUS_AHEAD, lsn, lsn, previous)
        if rmgr > 21 and (rmgr < 128 or self.version == 14):
            return self._fault(RMGR, lsn, 0, rmgr)
        batch.soon_pos = self.wal.taken - (self.wal.filled - self.head) + AHEAD
        fault = wal_record.parse(batch, self.head, length, self.version)
        if fault:
            return self._fault(RECORD + fault, lsn, batch.fault_about, batch.fault_found)
        if rmgr == 0 and opcode == OVERWRITE_CONTRECORD and not self._check_replacement(batch, lsn):
            return 0
        self.head = (self.head + length + 7) & ~7
        while self.wal.page_end[self.page] < self.head:
            self.page += 1
        end = self._lsn_at(self.head, self.page)
        if rmgr == 0 and opcode == SWITCH:
            end = self._skip_segment(end)
        else:
            self._end_at(end)
        batch.lsn_start[row] = lsn
        batch.lsn_end[row] = end
        self.previous_lsn = lsn
        self.behind_switch = False
        return 1

    def _check_replacement(self, batch, lsn):
        """The last record of the batch is OVERWRITE_CONTRECORD: is it about what we dropped?"""
        row = batch.count - 1
        about = coding.u64(self.wal.data, batch.main_pos[row])
        if self.dropped_lsn and about != self.dropped_lsn:
            batch.count = row
            return self._fault(OVERWRITTEN, lsn, self.dropped_lsn, about)
        self.dropped_lsn = 0
        return 1

    def _lsn_at(self, pos, page):
        """The LSN of the byte at `pos` of the buffer, which lies in `page` or is its end."""
        return self.wal.page_lsn[page] + PAGE_BYTES - (self.wal.page_end[page] - pos)

    def _end_at(self, lsn):
        """A record ends at `lsn`: the next one starts there, or behind the next page's header."""
        if lsn & (PAGE_BYTES - 1) == 0:
            lsn += 24 if lsn % self.segment_size else 40
        self.end_lsn = lsn
        return 0
