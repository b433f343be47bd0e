"""The answer to a GET: its body is read to the end that its headers announced, or not at all."""

import base64
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import crc32c

from server.backup.object_store import RefusedError, TransientError
from server.backup.s3_errors import FAILURES

CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class CutOff(TransientError):
    """The body ended early, or is not what was stored: asked again, it may come whole."""


class Answer:
    """`size` is the whole object's."""

    def __init__(
        self,
        call: str,
        response: dict[str, Any],
        start: int,
        length: int | None,
        note_received: Callable[[int], None],
    ) -> None:
        self._call = call
        self._body = response["Body"]
        self._note_received = note_received
        self._checksum = ""
        self.etag: str = response.get("ETag", "")
        if start == 0 and length is None:
            self.size = self._expected = self._whole_length(response)
            # That of an object in parts is one of its parts' checksums, and says so.
            if "-" not in (found := response.get("ChecksumCRC32C", "")):
                self._checksum = found
        else:
            self._read_range(response, start, length)

    def _whole_length(self, response: dict[str, Any]) -> int:
        length = response.get("ContentLength")
        if length is None:
            self.close()
            raise RefusedError(f"{self._call}: the answer does not say how long it is")
        return int(length)

    def _read_range(self, response: dict[str, Any], start: int, length: int | None) -> None:
        text = response.get("ContentRange", "")
        found = CONTENT_RANGE.fullmatch(text)
        if found is None:
            self.close()
            raise RefusedError(f"{self._call}: the store ignores Range")
        first, last, self.size = map(int, found.groups())
        end = self.size if length is None else min(self.size, start + length)
        if (first, last + 1) != (start, end):
            self.close()
            raise TransientError(f"{self._call}: asked for bytes {start} to {end}, got {text}")
        self._expected = end - start

    def all(self) -> bytes:
        try:
            data: bytes = self._body.read()
        except FAILURES as error:
            raise CutOff(f"{self._call}: the answer was cut off: {error}") from None
        finally:
            self.close()
        self._note_received(len(data))
        self._check_length(len(data))
        self.check(crc32c.crc32c(data))
        return data

    def pieces(self, piece_bytes: int) -> Iterator[bytes]:
        count = 0
        try:
            while piece := self._body.read(piece_bytes):
                count += len(piece)
                self._note_received(len(piece))
                yield piece
        except FAILURES as error:
            raise CutOff(f"{self._call}: the answer was cut off: {error}") from None
        self._check_length(count)

    def check(self, checksum: int) -> None:
        """CutOff unless that is the whole object's, where the store told it."""
        if self._checksum and base64.b64decode(self._checksum) != checksum.to_bytes(4, "big"):
            raise CutOff(f"{self._call}: what came is not what was stored, by its CRC-32C")

    def _check_length(self, count: int) -> None:
        if count != self._expected:
            raise CutOff(f"{self._call}: {count} bytes came, {self._expected} were announced")

    def close(self) -> None:
        with suppress(*FAILURES):  # all that was wanted has come, or an error has been raised
            self._body.close()
