# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""PostgreSQL's own compression, which page images in WAL come in when wal_compression = pglz.

The compressed bytes are groups of one control byte and up to eight items. Bit i of the control
byte, lowest first, says what item i is:

    0   one byte, to be taken as it is
    1   a match: two bytes LO HO, and a third when its length does not fit
            length = (LO & 0x0F) + 3, and if that is 18, + the third byte
            offset = (LO & 0xF0) << 4 | HO, how far back the match lies in the output (1..4095)

A match may reach into what it writes: offset 1 repeats one byte. Nothing tells how long the output
is; the caller knows (a page without its hole).
"""

from formats import coding


def decompress(source, pos, length, target, target_pos, target_length):
    """Decompress source[pos : pos + length] to exactly `target_length` bytes of `target`.

    Raises ValueError when the bytes are no such compression of that many bytes; what was written
    of the target by then is undefined.
    """
    if pos < 0 or length < 0 or pos + length > source.shape[0]:
        raise IndexError("compressed bytes out of bounds")
    if target_pos < 0 or target_length < 0 or target_pos + target_length > target.shape[0]:
        raise IndexError("decompressed bytes out of bounds")
    end = pos + length
    out = target_pos
    out_end = target_pos + target_length
    while pos < end and out < out_end:
        control = source[pos]
        pos += 1
        item = 0
        while item < 8 and pos < end and out < out_end:
            if control & 1:
                if pos + 2 > end:
                    raise ValueError("pglz: a match is cut off")
                run = (source[pos] & 0x0F) + 3
                offset = (source[pos] & 0xF0) << 4 | source[pos + 1]
                pos += 2
                if run == 18:
                    if pos >= end:
                        raise ValueError("pglz: a match is cut off")
                    run += source[pos]
                    pos += 1
                if offset == 0 or offset > out - target_pos:
                    raise ValueError("pglz: a match lies before the output")
                if run > out_end - out:
                    raise ValueError("pglz: a match runs over the end of the output")
                if offset >= run:
                    coding.move(target, out, out - offset, run)
                    out += run
                else:
                    for _ in range(run):
                        target[out] = target[out - offset]
                        out += 1
            else:
                target[out] = source[pos]
                pos += 1
                out += 1
            control >>= 1
            item += 1
    if out != out_end:
        raise ValueError("pglz: the input ends before the output is full")
    if pos != end:
        raise ValueError("pglz: the output is full before the input ends")
    return 0
