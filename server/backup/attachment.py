"""Taking a bucket's epoch for a directory, if the directory descends from what the bucket has.

    probe -> read the chain -> compare with D/bucket -> append EpochTaken

From the last step on any other writer is fenced off. Another one that appends in between makes it
begin anew; a lost answer makes it ask again.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from engine.storage import Storage
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn
from formats.manifest import Manifest
from server.backup import binding
from server.backup.binding import NotDescendedError
from server.backup.bucket_manifest import BucketManifest, OvertakenError

_log = logging.getLogger("pageserver.backup")


class Attachment:
    """Of one process, which takes one epoch; used by one thread."""

    def __init__(
        self,
        storage: Storage,
        directory: Path,
        url: str,
        server_id: str,
        bucket: BucketManifest,
        nonce: str,
        probe: Callable[[], None],
    ) -> None:
        """`bucket` calls `expect`. `nonce` is drawn for this process alone. `probe` raises
        RefusedError if the store cannot keep two writers apart."""
        self._storage = storage
        self._directory = directory
        self._url = url
        self._server_id = server_id
        self._bucket = bucket
        self._nonce = nonce
        self._probe = probe
        self._is_probed = False
        self._is_empty = False

    def expect(self, serial: int, crc: int) -> None:
        """An entry is about to be sent: write down that it may be ours."""
        bound = binding.read(self._storage, self._directory, self._url)
        binding.write(self._storage, self._directory, bound.expecting(serial, crc))

    def step(self, local: Manifest | None) -> bool:
        """Whether the epoch is taken; `local` is None while there is no base backup.

        NotDescendedError, CorruptionError; after a StoreError it may be called again.
        """
        if not self._is_probed:
            self._probe()
            self._is_probed = True
        if local is None and self._is_empty:
            return False
        state = self._bucket.read()
        if local is None:
            self._is_empty = state.manifest.identity is None
            if self._is_empty:
                return False
            raise NotDescendedError(
                f"{self._url} has a backup up to {show_lsn(state.remote_lsn)}, and "
                f"{self._directory} is empty. Restore it there (pageserver restore), or name a "
                "prefix of its own"
            )
        if local.ends_at_lsn is not None:
            raise NotDescendedError(
                f"{self._directory} was restored as of {show_lsn(local.ends_at_lsn)} and is only "
                "read: serve it without --s3"
            )
        if lost := binding.lacking(self._storage, self._directory, local, state.manifest):
            raise CorruptionError(
                "layers that are in the bucket, by the manifest here", self._url,
                f"{len(lost)}, as {lost[0].text}",
                "none of them. Is it another bucket of that name, at another endpoint? Then go on "
                "with the former. Was it emptied? Then bring its objects back",
            )  # fmt: skip
        binding.read(self._storage, self._directory, self._url).check(state, local)
        try:
            epoch = self._bucket.take_epoch(self._nonce, self._server_id)
        except OvertakenError:
            return False
        _log.info("backing up to %s, epoch %d", self._url, epoch)
        return True
