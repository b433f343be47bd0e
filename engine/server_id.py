"""D/server_id: the 32-bit number that names a directory's slot, drawn at its first start.

Eight hex digits, a blank, their CRC-32C in eight more, a line end. It is on disk before the slot is
made: a start that was cut off finds its slot again.
"""

import secrets
from pathlib import Path

from crc32c import crc32c

from engine.storage import Storage
from formats.errors import CorruptionError

FILE_NAME = "server_id"


def pack(number: int) -> bytes:
    """The content of the file."""
    digits = f"{number:08x}"
    return f"{digits} {crc32c(digits.encode()):08x}\n".encode()


def read(storage: Storage, directory: Path) -> int:
    """The number of a directory that was served before; CorruptionError, or OSError if it is not
    there."""
    path = directory / FILE_NAME
    text = storage.read_all(path)
    try:
        number = int(text[:8], 16)
    except ValueError:
        number = -1
    if number < 0 or text != pack(number):
        raise CorruptionError("server id", str(path), "8 hex digits and their CRC-32C", text)
    return number


def read_or_draw(storage: Storage, directory: Path) -> int:
    """The directory's number, drawn and made durable now if it has none."""
    path = directory / FILE_NAME
    if storage.exists(path):
        return read(storage, directory)
    number = secrets.randbits(32)
    write(storage, directory, number)
    return number


def write(storage: Storage, directory: Path, number: int) -> None:
    """Give a directory this number, durably."""
    path = directory / FILE_NAME
    draft = directory / (FILE_NAME + ".new")
    if storage.exists(draft):
        storage.remove(draft)
    file = storage.create(draft)
    storage.append(file, [pack(number)])
    storage.sync(file)
    storage.close(file)
    storage.rename(draft, path)
    storage.sync_directory(directory)
