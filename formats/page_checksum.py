# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""The data checksum of pages: computing it, writing it, finding pages where it is wrong.

A page that was never initialised carries no checksum and is right only when it is all zeros, as
PostgreSQL's own check has it (storage/page/bufpage.c, PageIsVerified).
"""

import cython

from formats import coding
from formats import page as page_format

# One 32-bit start value for each of the 32 interleaved sums of the page checksum.
_checksum_seeds = memoryview(
    bytes.fromhex(
        "e9361f5b605952b8aa50ab022a6de61d7a46ff79a3f8b99bd27c7e212c3de183"
        "4f47d4f870b99ee316aec642fa1632995d3b097b3cffda982a9018f7db9c1c0b"
        "4b768fe5bc367618b13b7b5ddee73de779c9be92b2c0a6cc79094a30d443aa85"
        "bb253178a2eaa86cc6ea07e43efc5c4b768cbf9fbe20ca15d39fcaf256d79b95"
    )
)

# A variable, so that the compiler multiplies: of the constant it makes a chain of shifts and sums.
_prime = 16777619


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
        if page_format.is_new(one):
            wrong = not _is_zero(one)
        else:
            wrong = checksum(one, first_block + index) != coding.u16(one, 8)
        if wrong:
            bad[found] = index
            found += 1
    return found


def _is_zero(one):
    for pos in range(0, 8192, 8):  # noqa: SIM110  (a generator would need the GIL)
        if coding.u64(one, pos) != 0:
            return False
    return True


@cython.boundscheck(False)
def checksum(page, block):
    """The data checksum of the page as block `block`, whatever pd_checksum holds.

    32 interleaved FNV-1a sums over the u32 of the page, with pd_checksum taken as zero.
    """
    if len(page) != 8192:
        raise ValueError("checksum of something that is not a page")
    sums = cython.declare(cython.uint[32])
    mask = 0xFFFFFFFF
    prime = _prime
    for lane in range(32):
        sums[lane] = coding.u32(_checksum_seeds, 4 * lane)
    stored = coding.u16(page, 8)
    # The field lies in the low half of word 2: what the first row sees there is taken out again.
    sums[2] ^= stored
    row = 0
    while row < 8192:
        for lane in range(32):
            # In bounds: the page's length was checked above.
            value = sums[lane] ^ coding.u32_checked_before(page, row + 4 * lane)
            sums[lane] = (value * prime & mask) ^ value >> 17
        row += 128
    for _ in range(2):
        for lane in range(32):
            value = sums[lane]
            sums[lane] = (value * prime & mask) ^ value >> 17
    total = block & mask
    for lane in range(32):
        total ^= sums[lane]
    return total % 65535 + 1


def set_checksum(page, block):
    """Write the data checksum of the page as block `block`; a new page has none (PageIsNew)."""
    if page_format.is_new(page):
        return 0
    return coding.put_u16(page, 8, checksum(page, block))
