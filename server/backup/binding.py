"""D/bucket: which bucket a directory belongs to, and what shows that it was the one to write there.

Serial and CRC of each entry that is appended to the bucket's chain are written here before it is
sent, and a restored directory has those of the entry that it was restored from. A directory
*descends* from what the bucket has iff that is nothing yet, or its last entry is one of these. Any
other may lack what the bucket has, or have what never was: an older copy of a directory, a server
that another one has taken over from, another cluster's. To go on from there would lose what was
acknowledged, so it is refused. A process that dies without an answer finds its own entry again.

The file is a line of JSON and one with its CRC-32C in eight hex digits; it is replaced as a whole.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from crc32c import crc32c

from engine.storage import Storage
from formats.bucket_state import BucketState
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.lsn import show as show_lsn
from formats.manifest import Manifest

FILE_NAME = "bucket"
ENTRIES_MAX = 8
"""More than can be late at a time: a process sends one entry, again and again, until it knows."""


class NotDescendedError(Exception):
    """The bucket has what this directory does not come from; the text says what to do."""


@dataclass(frozen=True)
class Binding:
    """What D/bucket says."""

    url: str
    entries: tuple[tuple[int, int], ...] = ()  # serial and CRC of the last that may be there
    is_restored: bool = False  # and has never been one to write there

    def expecting(self, serial: int, crc: int) -> "Binding":
        """Before this entry is sent."""
        entries = (*self.entries[1 - ENTRIES_MAX :], (serial, crc))
        return replace(self, entries=entries, is_restored=False)

    def check(self, bucket: BucketState, local: Manifest) -> None:
        """NotDescendedError unless the directory whose manifest this is descends from the bucket's
        state."""
        if bucket.manifest.identity is None:
            return
        if bucket.manifest.identity != local.identity:
            raise NotDescendedError(
                f"{self.url} has another cluster's backup, or one of other chunks: its tenant is "
                f"{bucket.manifest.identity.tenant}. Name a prefix of its own"
            )
        is_known = (bucket.serial, bucket.crc) in self.entries
        if not is_known or bucket.local_serial > local.serial:
            raise NotDescendedError(
                f"{self.url} has what this directory does not come from: server "
                f"{bucket.server_id} went on there, with epoch {bucket.epoch}, up to "
                f"{show_lsn(bucket.remote_lsn)}; here layers reach {show_lsn(local.durable_lsn)}. "
                "To go on from what the bucket has, start on an empty directory, with the same "
                "--s3; to keep this one as well, name a prefix of its own"
            )


def lacking(storage: Storage, directory: Path, local: Manifest, bucket: Manifest) -> list[FileName]:
    """Bundles that the directory's manifest says are in the bucket, that the bucket's does not
    name, and that are not here; `storage` knows of local files alone."""
    return [
        name for name in sorted(local.uploaded)
        if bucket.uploaded.get(name) != local.uploaded[name]
        and not storage.exists(directory / "layers" / name.text)
    ]  # fmt: skip


def exists(storage: Storage, directory: Path) -> bool:
    return storage.exists(directory / FILE_NAME)


def read(storage: Storage, directory: Path, url: str) -> Binding:
    """The binding of a directory to the bucket at `url`; an empty one if it has none.

    CorruptionError.
    """
    stored = _read(storage, directory)
    return Binding(url) if stored is None else replace(stored, url=url)


def url_of(storage: Storage, directory: Path) -> str | None:
    """The bucket that a directory is bound to, None: to none. CorruptionError."""
    stored = _read(storage, directory)
    return None if stored is None else stored.url


def is_untried_restore(storage: Storage, directory: Path) -> bool:
    """Whether it was restored whole, and never went on in the bucket since. CorruptionError."""
    stored = _read(storage, directory)
    return stored is not None and stored.is_restored


def _read(storage: Storage, directory: Path) -> Binding | None:
    path = directory / FILE_NAME
    if not storage.exists(path):
        return None
    content = storage.read_all(path)
    line, _, rest = content.partition(b"\n")
    if rest != _crc_line(line):
        raise CorruptionError("binding to a bucket", str(path), _crc_line(line), rest)
    try:
        values = json.loads(line)
        entries = tuple((int(serial), int(crc)) for serial, crc in values["entries"])
        return Binding(str(values["url"]), entries, bool(values.get("is_restored")))
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptionError("binding to a bucket", str(path), "url and entries",
                              error) from error  # fmt: skip


def write(storage: Storage, directory: Path, binding: Binding) -> None:
    """Make it the directory's, durably, whole or not at all."""
    path = directory / FILE_NAME
    draft = path.with_name(FILE_NAME + ".new")
    if storage.exists(draft):
        storage.remove(draft)
    line = json.dumps(asdict(binding)).encode()
    file = storage.create(draft)
    try:
        storage.append(file, [line + b"\n" + _crc_line(line)])
        storage.sync(file)
    finally:
        storage.close(file)
    storage.rename(draft, path)
    storage.sync_directory(directory)


def _crc_line(line: bytes) -> bytes:
    return f"{crc32c(line):08x}\n".encode()
