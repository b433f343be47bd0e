# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Headers of WAL pages, and the names of segment files.

Every page of 8 KiB begins with a header; the first of each segment has the long one:

    offset  size  field
         0     2  magic: one value per PostgreSQL major version
         2     2  flags
         4     4  timeline on which the page was begun
         8     8  LSN of the page itself
        16     4  how many bytes of a record from earlier pages are still to come, this page's
                  included (0 when the page begins with a record)
        20     4  padding
        24     8  system identifier           (long header only, like the rest)
        32     4  segment size in bytes
        36     4  page size in bytes: 8192

formats/lsn.py has the arithmetic of pages and segments.
"""

from formats import coding

CONTINUES = 1  # the page begins with the rest of a record
LONG_HEADER = 2
REMOVABLE = 4  # images in records that start here are not needed for recovery
OVERWRITES = 8  # the record that was to continue here never will; a new one starts instead
ALL_FLAGS = 15

# Of each, in order.
MAGICS = [0xD10D, 0xD110, 0xD113, 0xD116, 0xD118]
VERSION_MIN = 14
VERSION_MAX = 18


class PageHeader:
    """One page's header; `load` fills it, long fields stay 0 for a short one."""

    def load(self, view, pos):
        self.magic = coding.u16(view, pos)
        self.flags = coding.u16(view, pos + 2)
        self.timeline = coding.u32(view, pos + 4)
        self.lsn = coding.u64(view, pos + 8)
        self.remaining = coding.u32(view, pos + 16)
        self.system_identifier = 0
        self.segment_size = 0
        self.page_size = 0
        if self.flags & LONG_HEADER:
            self.system_identifier = coding.u64(view, pos + 24)
            self.segment_size = coding.u32(view, pos + 32)
            self.page_size = coding.u32(view, pos + 36)
        return 0


def major_version(magic):
    """The PostgreSQL major version that writes this magic, 0 if none that is kept here does."""
    for i in range(VERSION_MAX - VERSION_MIN + 1):
        if MAGICS[i] == magic:
            return VERSION_MIN + i
    return 0


def magic(version):
    """The magic of a major version, 0 if it is none that is kept here."""
    if version < VERSION_MIN or version > VERSION_MAX:
        return 0
    return MAGICS[version - VERSION_MIN]


def file_name(timeline: int, segment: int, segment_size: int) -> str:
    """The name of a segment's file: timeline, then the segment's number in two parts."""
    per_high = (1 << 32) // segment_size
    return f"{timeline:08X}{segment // per_high:08X}{segment % per_high:08X}"


def is_file_name(name: str) -> bool:
    """Whether this is the name of a whole segment (".partial" and ".history" files are not)."""
    return len(name) == 24 and set(name) <= set("0123456789ABCDEF")


def parse_file_name(name: str, segment_size: int) -> tuple[int, int]:
    """The timeline and segment number that a segment file's name says."""
    per_high = (1 << 32) // segment_size
    if not is_file_name(name) or int(name[16:], 16) >= per_high:
        raise ValueError(f"not the name of a WAL segment of {segment_size} bytes: {name!r}")
    return int(name[:8], 16), int(name[8:16], 16) * per_high + int(name[16:], 16)
