# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Versions -> page: the self-contained one first, then redo in LSN order.

    image or zeros  ->  record parts and effects, oldest to newest  ->  the page at the LSN asked

The interlock: a base backup's image is *fuzzy*, that is, it may hold changes of records that come
after the backup's start. Over it, as in PostgreSQL's recovery, a record that ends at or below the
page's pd_lsn is skipped; images and initialisations always apply and end the fuzziness.

A record that changes a page which was never written finds zeros. PostgreSQL's recovery skips it
and expects the relation to be truncated or dropped later (xlogutils.c, log_invalid_page). That is
legal up to the base backup's end only, `new_page_lsn_max`; above it the page is damaged.
"""

from engine.redo import dispatch, effect
from engine.redo.part import Part
from formats import coding
from formats import page as pages


class Reconstruct:
    def __init__(self, version):
        """`version` is PostgreSQL's major version."""
        self.part = Part()
        self.part.version = version
        self.new_page_lsn_max = 0
        self.unreadable_rmgr = -1

    def page(self, versions, oldest, out, pos, has_base):
        """Build one page in out[pos : pos + 8192] from the chain that starts at `oldest`.

        With `has_base` the page there is the start, else zeros. Raises ValueError or IndexError if
        a version does not fit the page; after an UNREADABLE one `unreadable_rmgr` and its fellows
        say which record that was, otherwise it is -1.
        """
        self.part.page = out[pos : pos + 8192]
        self.part.bytes = versions.data
        if not has_base and not self._begins_with_image(versions, oldest):
            coding.fill(self.part.page, 0, 8192, 0)
        self.unreadable_rmgr = -1
        fuzzy = 0
        number = oldest
        while number != 0:
            fuzzy = self.apply(
                self.part,
                versions.offset[number],
                versions.length[number],
                versions.lsn[number],
                fuzzy,
            )
            number = versions.newer[number]
        return 0

    def _begins_with_image(self, versions, oldest):
        """Whether the oldest version is an image, which leaves no byte of the page as it was."""
        return oldest != 0 and coding.u8(versions.data, versions.offset[oldest]) <= 3

    def apply(self, part, start, length, lsn, fuzzy):
        """Apply the version part.bytes[start : start + length] to part.page.

        `fuzzy` says whether the page is; returned is whether it still is.
        """
        kind = coding.u8(part.bytes, start)
        if kind == 8:
            return self._record(part, start, length, lsn, fuzzy)
        if kind <= 3:
            self._image(part, start, length)
            if kind == 1 and coding.u16(part.page, 14) != 0:
                self._set_lsn(part, lsn)
            return kind == 3
        if kind == 16:
            effect.apply(part.page, part.bytes, start, length)
            return fuzzy
        if kind == 32:
            self.unreadable_rmgr = coding.u8(part.bytes, start + 1)
            self.unreadable_info = coding.u8(part.bytes, start + 2)
            self.unreadable_lsn = lsn
            raise ValueError("a record for which there is no redo changed it")
        raise ValueError("a version of a kind that pages do not have")

    def _image(self, part, start, length):
        """Put an image's two halves around its hole."""
        hole_offset = coding.u16(part.bytes, start + 2)
        hole_length = coding.u16(part.bytes, start + 4)
        if length != 6 + 8192 - hole_length or hole_offset + hole_length > 8192:
            raise ValueError("image: its hole does not fit its length")
        coding.copy(part.page, 0, part.bytes, start + 6, hole_offset)
        coding.fill(part.page, hole_offset, hole_length, 0)
        tail = hole_offset + hole_length
        return coding.copy(part.page, tail, part.bytes, start + 6 + hole_offset, 8192 - tail)

    def _record(self, part, start, length, lsn, fuzzy):
        """Redo one record's part; returns whether the page is still fuzzy."""
        part.load(start, length)
        part.lsn = lsn
        part.hint_bits_logged = part.flags & 2
        if part.flags & 1:
            coding.fill(part.page, 0, 8192, 0)
            fuzzy = 0
        elif fuzzy and lsn <= pages.lsn(part.page):
            return fuzzy
        elif coding.u16(part.page, 14) == 0 and not self._may_be_new(part):
            if lsn <= self.new_page_lsn_max:
                return fuzzy
            raise ValueError("a record changes a page that was never written")
        if dispatch.redo(part):
            self._set_lsn(part, lsn)
        return fuzzy

    def _set_lsn(self, part, lsn):
        """pages.set_lsn, but the page need not be handed to another module."""
        coding.put_u32(part.page, 0, lsn >> 32)
        return coding.put_u32(part.page, 4, lsn)

    def _may_be_new(self, part):
        """Heap2's VISIBLE record initialises the map page it names when that is new."""
        return part.rmgr == 9 and (part.info & 0x70) == 0x40 and part.block_id == 0
