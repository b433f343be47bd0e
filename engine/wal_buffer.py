# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""WAL without its page headers, in one buffer, and a table of the pages that it came from.

What was fed stays where it is, the *source*, until `pull` takes the next page of it: so a page is
copied just before it is decoded, and its CRC and its records find it in the CPU's first cache. For
the same reason the buffer is small; what was decoded is forgotten when it is full.

What is left of a page without its header goes to the end of the buffer, so that a record that ran
over pages lies there in one piece, and records still start at multiples of 8, as in the WAL. For
each page in the buffer the table has

    page_end    the position in the buffer at which its bytes end, or will
    page_lsn    its first byte's LSN, as counted from where the WAL began, not as it claims itself
    headers     its header as it came, 40 bytes apart

Page 0 is the one that the buffer's first byte belongs to. Nothing is validated here.
"""

from array import array

from formats import coding

PAGE_BYTES = 8192
SHORT_HEADER_BYTES = 24
LONG_HEADER_BYTES = 40
BUFFER_BYTES = 1 << 18  # a record of more makes the buffer grow for as long as it is in it
BUFFER_BYTES_MAX = 0xFFFFFFFF  # positions in record batches have 32 bits


class WalBuffer:
    def __init__(self, start_lsn, segment_size):
        in_page = start_lsn % PAGE_BYTES
        self.segment_size = segment_size
        self.lsn = start_lsn  # of the next byte to be pulled
        self.source = memoryview(b"")
        self.taken = 0  # so many bytes of the source were pulled
        self.skip_lsn = 0
        self.filled = 0
        self._allocate(BUFFER_BYTES)
        # The page that the start lies in; at the start of a page, the empty end of the one before.
        self.page_count = 1
        self.page_lsn[0] = start_lsn - (in_page or PAGE_BYTES)
        self.page_end[0] = PAGE_BYTES - in_page if in_page else 0

    def _allocate(self, capacity):
        pages = capacity // (PAGE_BYTES - LONG_HEADER_BYTES) + 6  # both ends' are partly there
        self.data = memoryview(bytearray(capacity))
        self.page_end = memoryview(array("q", bytes(8 * pages)))
        self.page_lsn = memoryview(array("Q", bytes(8 * pages)))
        self.headers = memoryview(bytearray(LONG_HEADER_BYTES * pages))

    def make_room(self, head, page, length):
        """Forget what lies before position `head`, in page `page`; make room for `length` bytes.

        Positions then count from `head` and pages from `page`.
        """
        kept = self.filled - head
        length += PAGE_BYTES  # what `pull` wants to see
        if kept + length > BUFFER_BYTES_MAX:
            raise ValueError("more WAL fed than is decoded: positions must fit into 32 bits")
        pages_kept = self.page_count - page
        data, headers = self.data, self.headers
        page_end, page_lsn = self.page_end, self.page_lsn
        capacity = BUFFER_BYTES
        while capacity < kept + length:
            capacity *= 2
        # One header more: the next page's may be here in part.
        header_bytes = LONG_HEADER_BYTES * (pages_kept + 1)
        if capacity != data.shape[0]:
            self._allocate(capacity)
            coding.copy(self.data, 0, data, head, kept)
            coding.copy(self.headers, 0, headers, LONG_HEADER_BYTES * page, header_bytes)
        else:
            coding.move(data, 0, head, kept)
            coding.move(headers, 0, LONG_HEADER_BYTES * page, header_bytes)
        for i in range(pages_kept):
            self.page_end[i] = page_end[page + i] - head
            self.page_lsn[i] = page_lsn[page + i]
        self.filled = kept
        self.page_count = pages_kept

    def offer(self, source):
        """Have `pull` take its bytes from here, when it has taken all of the source before."""
        self.source = source
        self.taken = 0

    def left(self):
        """How many bytes of the source `pull` has not taken."""
        return self.source.shape[0] - self.taken

    def has_room(self):
        """Whether there is room for a `pull`."""
        return self.filled + PAGE_BYTES <= self.data.shape[0]

    def pull(self):
        """Take the next bytes of the source, at most up to a header's or a page's end."""
        left = self.source.shape[0] - self.taken
        if self.lsn < self.skip_lsn:
            step = min(left, self.skip_lsn - self.lsn)
        else:
            step = self._append_some(self.source, self.taken, left)
        self.taken += step
        self.lsn += step
        return 0

    def _append_some(self, source, pos, length):
        """Take up to `length` bytes, at most up to the end of a header or of a page."""
        in_page = self.lsn % PAGE_BYTES
        page_lsn = self.lsn - in_page
        header_bytes = SHORT_HEADER_BYTES if page_lsn % self.segment_size else LONG_HEADER_BYTES
        if in_page >= header_bytes:
            step = min(length, PAGE_BYTES - in_page)
            coding.copy(self.data, self.filled, source, pos, step)
            self.filled += step
            return step
        step = min(length, header_bytes - in_page)
        header = LONG_HEADER_BYTES * self.page_count
        coding.copy(self.headers, header + in_page, source, pos, step)
        if in_page + step == header_bytes:
            self.page_lsn[self.page_count] = page_lsn
            self.page_end[self.page_count] = self.filled + PAGE_BYTES - header_bytes
            self.page_count += 1
        return step

    def skip_to(self, lsn, head, page):
        """Drop the WAL from position `head`, in page `page`, to `lsn`, where a page starts.

        Returns the page at whose end to go on. What is still to come is dropped when it comes.
        """
        after = page + 1
        while after < self.page_count and self.page_lsn[after] < lsn:
            after += 1
        if after < self.page_count:
            return after - 1
        # The page at `lsn` may be here with a part of its header.
        coding.move(self.headers, LONG_HEADER_BYTES * (page + 1),
                    LONG_HEADER_BYTES * self.page_count, LONG_HEADER_BYTES)  # fmt: skip
        self.page_end[page] = head
        self.page_count = page + 1
        self.filled = head
        self.skip_lsn = lsn
        return page
