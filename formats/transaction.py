"""What COMMIT and ABORT records say, of prepared transactions too (src/include/access/xact.h)."""

import struct


class TransactionEnd:
    """What a commit or abort record says beyond its own xid."""

    def __init__(self) -> None:
        self.subxids: tuple[int, ...] = ()
        self.relations: list[tuple[int, int, int]] = []
        self.prepared_xid = 0
        self.time = 0  # microseconds since 2000: where the transaction itself ended
        self.has_origin = False  # it was replicated from elsewhere
        self.origin_lsn = 0  # where it ended there; 0 if nobody said so


def parse_transaction(operation: int, has_info: bool, main: bytes, major: int) -> TransactionEnd:
    """Parse COMMIT, ABORT and their PREPARED forms (ParseCommitRecord, xactdesc.c)."""
    end = TransactionEnd()
    (end.time,) = struct.unpack_from("<q", main)
    pos = 8
    if not has_info:
        return end
    (xinfo,) = struct.unpack_from("<I", main, pos)
    pos += 4
    if xinfo & 1:  # database and tablespace
        pos += 8
    if xinfo & 2:
        (count,) = struct.unpack_from("<i", main, pos)
        end.subxids = struct.unpack_from(f"<{count}I", main, pos + 4)
        pos += 4 + 4 * count
    if xinfo & 4:
        (count,) = struct.unpack_from("<i", main, pos)
        pos += 4
        for _ in range(count):
            end.relations.append(struct.unpack_from("<III", main, pos))
            pos += 12
    if xinfo & 256:  # dropped statistics: object ids became 64 bits wide in 18
        (count,) = struct.unpack_from("<i", main, pos)
        pos += 4 + count * (16 if major >= 18 else 12)
    if xinfo & 8:  # cache invalidations, of commits only
        (count,) = struct.unpack_from("<i", main, pos)
        pos += 4 + 16 * count
    if xinfo & 16:
        (end.prepared_xid,) = struct.unpack_from("<I", main, pos)
        pos += 4
    if xinfo & 128:  # the prepared transaction's name, with its zero
        pos = main.index(b"\0", pos) + 1
    if xinfo & 32:
        end.has_origin = True
        end.origin_lsn, end.time = struct.unpack_from("<Qq", main, pos)
    return end
