"""D/bucket: which bucket a directory belongs to, and what shows that it was the one to write there.

A bucket names in each entry's epoch the nonce of the process that took it. A directory *descends*
from what the bucket has iff that is nothing yet, or

    the nonce is one of those that were drawn here, and the bucket mirrors no later state of the
    manifest than the one here; or
    the directory was restored from this very entry of the bucket.

Any other may lack what the bucket has, or have what never was: an older copy of a directory,
a server that another one has taken over from, another cluster's. To go on from there would lose
what was acknowledged, so it is refused. A nonce is written here before it is sent: a process that
dies without the answer finds its own attempt again.

The file is a line of JSON and one with its CRC-32C in eight hex digits; it is replaced as a whole.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from crc32c import crc32c

from engine.storage import Storage
from formats.bucket_state import BucketState
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn
from formats.manifest import Manifest

FILE_NAME = "bucket"
NONCES_MAX = 64
"""More attempts without an answer than one can be late at a time."""


class NotDescendedError(Exception):
    """The bucket has what this directory does not come from; the text says what to do."""


@dataclass(frozen=True)
class Binding:
    """What D/bucket says."""

    url: str
    nonces: tuple[str, ...] = ()  # the first is that of the last epoch known to be ours
    restored: tuple[int, int] | None = None  # serial and CRC of the entry it was restored from

    def attempting(self, nonce: str) -> "Binding":
        """Before `nonce` is sent."""
        first, attempts = self.nonces[:1], self.nonces[1:]
        return replace(self, nonces=(*first, *attempts[-(NONCES_MAX - 2) :], nonce))

    def confirmed(self, nonce: str) -> "Binding":
        """The bucket has it: what came before counts no more."""
        return Binding(self.url, (nonce,))

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
        if (bucket.serial, bucket.crc) == self.restored:
            return
        reason = self._difference(bucket, local)
        if reason:
            raise NotDescendedError(
                f"{self.url} has what this directory does not come from: {reason}. To go on from "
                "what the bucket has, start on an empty directory, with the same --s3; to keep "
                "this one as well, name a prefix of its own"
            )

    def _difference(self, bucket: BucketState, local: Manifest) -> str:
        """Why the directory does not descend, "" if it does."""
        theirs = bucket.manifest
        if bucket.nonce not in self.nonces:
            return f"epoch {bucket.epoch} was taken elsewhere, by server {bucket.server_id}"
        if bucket.local_serial > local.serial:
            return (
                f"it is an older copy, at serial {local.serial} of its manifest; the bucket has "
                f"serial {bucket.local_serial}"
            )
        if theirs.durable_lsn > local.durable_lsn or theirs.run > local.run:
            return (
                f"the bucket has layers up to {show_lsn(theirs.durable_lsn)} of run {theirs.run}, "
                f"it has them up to {show_lsn(local.durable_lsn)} of run {local.run}"
            )
        for name, file in theirs.files.items():
            if local.files.get(name, file) != file:
                return f"{name.text} is another file there"
        return ""


def exists(storage: Storage, directory: Path) -> bool:
    return storage.exists(directory / FILE_NAME)


def read(storage: Storage, directory: Path, url: str) -> Binding:
    """The binding of a directory to the bucket at `url`; an empty one if it has none.

    CorruptionError.
    """
    path = directory / FILE_NAME
    if not storage.exists(path):
        return Binding(url)
    content = storage.read_all(path)
    line, _, rest = content.partition(b"\n")
    if rest != _crc_line(line):
        raise CorruptionError("binding to a bucket", str(path), _crc_line(line), rest)
    try:
        values = json.loads(line)
        restored = values["restored"]
        serial_and_crc = None if restored is None else (int(restored[0]), int(restored[1]))
        return Binding(url, tuple(map(str, values["nonces"])), serial_and_crc)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise CorruptionError("binding to a bucket", str(path), "url, nonces, restored",
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
