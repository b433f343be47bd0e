# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Which pages of a run of pages have a wrong data checksum.

A page that was never initialised carries no checksum and is right only when it is all zeros, as
PostgreSQL's own check has it (storage/page/bufpage.c, PageIsVerified).
"""

from formats import coding, page


def find_bad_checksums(pages, first_block, bad):
    """Put the indexes of the wrong pages of `pages` into `bad`; returns how many there are.

    `pages` is a whole number of pages, `first_block` the number in its relation of the first one,
    `bad` a buffer of u32 with room for every page.
    """
    count = len(pages) // 8192
    if len(bad) < count or count * 8192 != len(pages):
        raise ValueError("scan of something that is not a whole number of pages")
    found = 0
    for index in range(count):
        start = index * 8192
        one = pages[start : start + 8192]
        if page.is_new(one):
            wrong = not _is_zero(one)
        else:
            wrong = page.checksum(one, first_block + index) != coding.u16(one, 8)
        if wrong:
            bad[found] = index
            found += 1
    return found


def _is_zero(one):
    for pos in range(0, 8192, 8):  # noqa: SIM110  (a generator would need the GIL)
        if coding.u64(one, pos) != 0:
            return False
    return True
