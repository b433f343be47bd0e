"""Objects of a backup as they come from the bucket: checked on the way, and asked for again where
the network or the store failed. Restore and scrub read by these.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

import crc32c
import zstandard

from formats import layer_file
from formats.bucket import JournalAdded
from formats.bundle_stream import FOOTER_BYTES_MAX, BundleSums
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.layer_directory import LayerDirectory
from formats.layer_file import FrameKind
from formats.manifest_record import FileAdded
from server.backup.object_store import ObjectStore, TransientError

ATTEMPTS_MAX = 6
FIRST_PAUSE_SECONDS = 0.5  # at most; twice that after each attempt that failed
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def patiently(call: Callable[[], _Result], sleep: Callable[[float], None] = time.sleep) -> _Result:
    """What `call` returns; TransientError once it has failed ATTEMPTS_MAX times. What does not
    check is asked for once more, as it may be right in the bucket; then CorruptionError."""
    is_doubted = False
    for attempt in range(ATTEMPTS_MAX - 1):
        try:
            return call()
        except TransientError:
            sleep(random.uniform(0.0, FIRST_PAUSE_SECONDS * 2**attempt))
        except CorruptionError:
            if is_doubted:
                raise
            is_doubted = True
    return call()


def bundle_pieces(store: ObjectStore, name: str, record: FileAdded) -> Iterator[bytes]:
    """The bytes of the bundle `record`, which is the object `name`; what came last counts only when
    the end is reached. CorruptionError, which names the object; StoreError."""
    sums = BundleSums(FileName.parse(record.name), record.bytes_total, record.footer_crc)
    try:
        for piece in store.get_stream(name):
            sums.feed(piece)
            yield piece
        sums.finish()
    except CorruptionError as error:
        where = f"{name}, {error.where}"
        raise CorruptionError(error.what, where, error.expected, error.found) from error


def layer_directory(store: ObjectStore, name: str, record: FileAdded) -> LayerDirectory:
    """What layers the bundle `record` has, of which only its end is read. CorruptionError."""
    file = FileName.parse(record.name)
    identity = layer_file.identity_of(file)
    tail_at = max(0, record.bytes_total - FOOTER_BYTES_MAX - layer_file.TRAILER_BYTES)
    tail = store.get(name, tail_at, record.bytes_total - tail_at)
    length, crc = layer_file.unpack_trailer(tail[-layer_file.TRAILER_BYTES :], name)
    body = tail[: -layer_file.TRAILER_BYTES][-length:]
    if crc != record.footer_crc:
        raise CorruptionError("footer checksum, by the manifest", name,
                              f"{record.footer_crc:08x}", f"{crc:08x}")  # fmt: skip
    footer = layer_file.unpack_footer(body, crc, identity, file, name)
    frame = store.get(name, footer.directory_offset, footer.directory_length)
    codec = zstandard.ZstdDecompressor()
    where = f"{name} offset {footer.directory_offset}"
    return LayerDirectory(layer_file.unseal(frame, FrameKind.DIRECTORY, 0, identity, codec, where))


def wal_of(store: ObjectStore, piece: JournalAdded) -> bytes:
    """The WAL of a piece of the journal. CorruptionError, which names the object; StoreError."""
    stored = b"".join(store.get_stream(piece.name))
    length, crc = piece.lsn_end - piece.lsn_start, crc32c.crc32c(stored)
    if (len(stored), crc) != (piece.bytes_stored, piece.crc):
        raise CorruptionError("piece of the journal (bytes, CRC)", piece.name,
                              (piece.bytes_stored, f"{piece.crc:08x}"),
                              (len(stored), f"{crc:08x}"))  # fmt: skip
    try:
        # A size that the frame itself claims is what the library would allocate.
        claimed = zstandard.frame_content_size(stored)
        if claimed not in (-1, length):
            raise CorruptionError("length of WAL", piece.name, length, claimed)
        data = zstandard.ZstdDecompressor().decompress(stored, max_output_size=length)
    except zstandard.ZstdError as error:
        raise CorruptionError("compressed WAL", piece.name, "a zstd frame", error) from error
    if len(data) != length:
        raise CorruptionError("length of WAL", piece.name, length, len(data))
    return data


def ahead(
    pool: Executor, call: Callable[[_Item], _Result], items: Iterable[_Item], count: int
) -> Iterator[_Result]:
    """The results of calls, in order of the items; no more than `count` are ahead of the reader."""
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) >= count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
