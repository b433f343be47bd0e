# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""WAL as it is streamed, in any chunking, given to the reader of WAL.

    input    u8 PostgreSQL's major version | u8 flags | u64 LSN | u32 how it is cut | WAL bytes

    flags    1 the version is not told | 2 zeros end the WAL | 4 no chunks: all bytes at once

Page headers and record headers are changed, and mostly the CRCs of the records that then lie in the
pages, and their links to the record before, are made right again. What the reader takes must not
depend on the chunking: now and then an input is read again in one piece, and compared.
"""

from engine.record_batch import RecordBatch
from engine.wal_reader import WalReader
from formats import coding, crc
from formats.errors import CorruptionError
from tools.fuzz.target import Target

HEAD = 14
SEGMENT_BYTES = 16 << 20
PAGE_BYTES = 8192
RECORDS_MAX = 1024
REFERENCES_MAX = 4096
READ = 0
CUTS = 0xFFFFFFFF
OUTCOMES = {READ: "no fault", **{n: f"{n} or more records, then a fault" for n in (1, 2, 4, 8, 16)}}


class StreamTarget(Target):
    def __init__(self, mutator, place):
        Target.__init__(self, mutator, place)
        self.batch = RecordBatch(RECORDS_MAX, REFERENCES_MAX)
        self.record = memoryview(bytearray(1 << 17))
        self.end = 0
        self.fault = None

    # Making an input ------------------------------------------------------------------------------

    def make(self, m):
        m.load(m.below(m.count))
        coding.put_u8(m.data, 1, m.below(8) & m.below(8))
        if coding.u64(m.data, 2) % PAGE_BYTES and m.below(64):  # else the version must be told
            coding.put_u8(m.data, 1, coding.u8(m.data, 1) & 6)
        m.next()
        coding.put_u32(m.data, 10, m.state & CUTS)
        i = m.below(4)
        while i > 0:
            self._change(m)
            i -= 1
        if m.below(16) == 0:
            m.length -= m.below(m.length - HEAD)
        if m.below(16):
            self._repair(m)
        return 0

    def _change(self, m):
        kind = m.below(16)
        page = HEAD + (PAGE_BYTES - coding.u64(m.data, 2) % PAGE_BYTES) % PAGE_BYTES
        page += PAGE_BYTES * m.below((m.length - page) // PAGE_BYTES + 1)
        if kind == 0:
            return m.change(0, HEAD) if m.below(8) == 0 else 0
        if page + 40 > m.length:
            return self._change_record(m)
        if kind == 1:
            return m.change(page, page + 40)
        if kind == 2:  # where the rest of a record ends that began on an earlier page
            return coding.put_u32(m.data, page + 16, m.below(20000))
        if kind == 3:
            return coding.put_u16(m.data, page + 2, m.below(16))
        if kind == 4:  # the end of WAL, as a recycled segment has it
            at = HEAD + m.below(m.length - HEAD)
            return coding.fill(m.data, at, min(PAGE_BYTES, m.length - at), 0)
        if kind == 5:  # stretches of other WAL
            at = page + 8 * m.below(1024)
            m.borrow(at, 8 * m.below(256), m.below(m.count), HEAD + 8 * m.below(1024))
            return 0
        if kind < 12:
            return self._change_record(m)
        return m.change(HEAD, m.length)

    def _change_record(self, m):
        """Change one of the records that begin here, in its header more often than elsewhere."""
        pos = self._first_record(m)
        i = m.below(24)
        while i > 0:
            length = self._length_at(m, pos)
            if length < 24:
                break
            following = self._after(m, pos, (length + 7) & ~7)
            if following + 24 >= m.length:
                break
            pos = following
            i -= 1
        kind = m.below(8)
        if pos + 24 > m.length:
            return m.change(HEAD, m.length)
        if kind == 0:
            return coding.put_u32(m.data, pos, m.number())
        if kind == 1:
            return coding.put_u32(m.data, pos, 24 + m.below(9000))
        if kind == 2:  # SWITCH, OVERWRITE_CONTRECORD
            coding.put_u8(m.data, pos + 16, 0xD0 if m.below(2) else 0x40)
            return coding.put_u8(m.data, pos + 17, 0)
        if kind == 3:
            return m.change(pos, pos + 24)
        return m.change(pos + 16, min(pos + 80, m.length))

    def _first_record(self, m):
        """Where the first record begins, if the first page's header is right."""
        start = coding.u64(m.data, 2)
        in_page = start % PAGE_BYTES
        if in_page or m.length < HEAD + 40:
            return HEAD
        header = 24 if start % SEGMENT_BYTES else 40
        rest = 0
        if coding.u8(m.data, HEAD + 2) & 1:
            rest = min(coding.u32(m.data, HEAD + 16), m.length)
        return self._after(m, HEAD + header, (rest + 7) & ~7)

    def _after(self, m, pos, length):
        """The position `length` bytes of records behind `pos`; page headers do not count."""
        start = coding.u64(m.data, 2)
        while True:
            in_page = (start + (pos - HEAD)) % PAGE_BYTES
            room = PAGE_BYTES - in_page
            if length < room:
                return pos + length
            pos += room + (24 if (start + (pos - HEAD) + room) % SEGMENT_BYTES else 40)
            length -= room
            if pos >= m.length:
                return m.length

    def _length_at(self, m, pos):
        if pos + 4 > m.length:
            return 0
        return min(coding.u32(m.data, pos), 1 << 16)

    def _repair(self, m):
        """Make CRCs and links of the records right, as far as they follow each other."""
        pos = self._first_record(m)
        previous = 0
        count = 0
        while count < RECORDS_MAX:
            length = self._length_at(m, pos)
            end = self._after(m, pos, length)
            if length < 24 or end >= m.length:
                return 0
            if previous and m.below(64):
                self._put(m, self._after(m, pos, 8), previous)
            self._gather(m, pos, length)
            computed = crc.of_two(self.record, 24, length - 24, 0, 20, self.record, 0)
            i = 0
            while i < 4:
                coding.put_u8(m.data, self._after(m, pos, 20 + i), (computed >> (8 * i)) & 255)
                i += 1
            previous = coding.u64(m.data, 2) + (pos - HEAD)
            pos = self._after(m, pos, (length + 7) & ~7)
            count += 1
        return 0

    def _put(self, m, pos, value):
        if pos + 8 <= m.length:
            coding.put_u64(m.data, pos, value)
        return 0

    def _gather(self, m, pos, length):
        """A record in one piece."""
        done = 0
        while done < length:
            start = coding.u64(m.data, 2)
            room = PAGE_BYTES - (start + (pos - HEAD)) % PAGE_BYTES
            step = min(room, length - done)
            if pos + step > m.length:
                return 0
            coding.copy(self.record, done, m.data, pos, step)
            pos = self._after(m, pos, step)
            done += step
        return 0

    # Running it -----------------------------------------------------------------------------------

    def execute(self, m):
        return self._read(m)

    def _read(self, m):
        if m.length < HEAD:
            raise ValueError("fuzz: not an input of this target")
        flags = coding.u8(m.data, 1)
        again = m.below(8) == 0
        count = self._read_all(m, flags)
        end, fault = self.end, self.fault
        if again:
            repeated = self._read_all(m, flags ^ 4)
            if repeated != count or self.end != end or str(self.fault) != str(fault):
                raise RuntimeError(f"in another chunking: {fault} at {end}, "
                                   f"or {self.fault} at {self.end}")  # fmt: skip
        if fault is None:
            return READ
        if count == 0:
            raise fault
        size = 1
        while 2 * size <= count and size < 16:
            size *= 2
        return size

    def _read_all(self, m, flags):
        """How many records the reader finds, up to the first fault."""
        lsn = coding.u64(m.data, 2)
        version = coding.u8(m.data, 0)
        reader = WalReader(lsn, SEGMENT_BYTES, None, None, None if flags & 1 else version,
                           flags & 2 != 0)  # fmt: skip
        wal = memoryview(bytes(m.data[HEAD : m.length]))
        cuts = coding.u32(m.data, 10)
        pos = 0
        count = 0
        self.fault = None
        try:
            while pos < len(wal) and not reader.at_end:
                step = len(wal)
                if not flags & 4:
                    cuts = (cuts * 69069 + 1) & CUTS
                    step = 1 + (cuts >> 16) % (40 if cuts & 0x8000 else 5000)
                reader.feed(lsn, wal[pos : pos + step])
                lsn += step
                pos += step
                got = reader.decode(self.batch)
                while got:
                    count += got
                    got = reader.decode(self.batch)
        except CorruptionError as error:
            self.fault = error
        self.end = reader.end_lsn
        return count
