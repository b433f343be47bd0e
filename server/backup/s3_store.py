"""The ObjectStore on S3, or on what speaks its protocol (docs/s3-endpoints.md), by boto3.

Every PUT, and every part of a large one, goes with its CRC-32C, which the store checks. What is
read whole is checked against the CRC-32C that the store has; ranges, and objects that were stored
in parts, only for their length: their own format has checksums. boto3 tries a request again that
failed; a body that was cut off is asked for again here.
"""

import base64
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import crc32c

from server.backup.byte_pace import BytePace
from server.backup.location import Location, check_endpoint
from server.backup.object_store import (
    NotThereError,
    ObjectInfo,
    RefusedError,
    TakenError,
    TransientError,
)
from server.backup.s3_client import Meter, Traffic, connect
from server.backup.s3_download import Answer, CutOff
from server.backup.s3_errors import FAILURES, code_of, status_of, told, told_of
from server.backup.s3_upload import part_size, parts_of, upload_in_parts

NAMES_AT_ONCE_MAX = 1000  # listed or deleted by one request
BODY_ATTEMPTS_MAX = 4
CONNECTIONS_MIN = 4  # what probing a store takes
ENCRYPTION = "PAGESERVER_S3_ENCRYPTION"
PIECE_BYTES = 1 << 20
WITHOUT_DELETE_OBJECTS = {
    "InvalidArgument",  # Google's
    "InvalidRequest",
    "MethodNotAllowed",
    "MissingContentMD5",  # from stores that do not know boto3's newer checksums
    "NotImplemented",
}


class S3Store:
    """`endpoint` None is Amazon, or what AWS_ENDPOINT_URL says.

    `parallelism` is how many threads will call at a time. `encryption` asks for server-side
    encryption: "AES256", "aws:kms" or "aws:kms:KEY"; None: what PAGESERVER_S3_ENCRYPTION says.
    Without `conditional` put_new asks first whether the object is there: for a store without
    conditional PUT and a single writer. `is_prompt`: a store that is silent is given up early, as
    somebody waits for a page. LocationError; RefusedError: what the environment says.
    """

    def __init__(
        self,
        url: str,
        endpoint: str | None = None,
        *,
        parallelism: int = 8,
        bytes_per_second: int = 0,
        encryption: str | None = None,
        conditional: bool = True,
        is_prompt: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.location = Location.parse(url)
        if endpoint is not None:
            check_endpoint(endpoint)
        self._bucket, self._prefix = self.location
        try:
            with told(self.location.url):
                self._client = connect(
                    endpoint, max(parallelism, CONNECTIONS_MIN), is_prompt=is_prompt
                )
            check_endpoint(self._client.meta.endpoint_url)  # errors show it
        except ValueError:
            raise RefusedError(
                "AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3 or the profile's endpoint_url is no URL of "
                "a server: expected http://HOST[:PORT] or https://HOST[:PORT], without credentials"
            ) from None
        self._meter = Meter(self._client)
        self._pace = BytePace(bytes_per_second, sleep=sleep)
        if encryption is None:
            encryption = os.environ.get(ENCRYPTION, "")
        self._encryption = encryption_arguments(encryption)
        self._conditional = conditional
        self._deletes_many = True
        self._sleep = sleep

    def traffic(self) -> Traffic:
        """What went over the wire so far."""
        return self._meter.traffic()

    # Writing --------------------------------------------------------------------------------------

    def put(self, name: str, data: bytes) -> None:
        with told(self._call("PUT", name)):
            self._put_object(name, data)

    def put_new(self, name: str, data: bytes) -> None:
        if not self._conditional:
            if self._is_there(name):
                raise TakenError(f"{self._call('PUT', name)}: it is there")
            self.put(name, data)
            return
        with told(self._call("PUT", name)):
            self._put_object(name, data, IfNoneMatch="*")

    def put_stream(self, name: str, pieces: Iterator[bytes], size: int) -> None:
        parts = parts_of(self._paced(pieces), part_size(size), size)
        if size <= part_size(size):
            self.put(name, next(parts))
            return
        upload_in_parts(
            self._client,
            self._call("PUT", name),
            {"Bucket": self._bucket, "Key": self._prefix + name},
            self._encryption,
            parts,
            size,
        )

    def _put_object(self, name: str, data: bytes, **arguments: str) -> None:
        self._client.put_object(
            Bucket=self._bucket,
            Key=self._prefix + name,
            Body=data,
            ChecksumCRC32C=checksum_text(crc32c.crc32c(data)),
            **self._encryption,
            **arguments,
        )

    def _paced(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._pace.take(len(piece))
            yield piece

    def _is_there(self, name: str) -> bool:
        try:
            with told(self._call("HEAD", name)):
                self._client.head_object(Bucket=self._bucket, Key=self._prefix + name)
        except NotThereError:
            return False
        return True

    # Reading --------------------------------------------------------------------------------------

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        for attempt in range(BODY_ATTEMPTS_MAX):
            try:
                answer = self._open(name, start, length)
                return answer.all() if answer is not None else b""
            except CutOff:
                if attempt == BODY_ATTEMPTS_MAX - 1:
                    raise
                self._wait(attempt)
        raise AssertionError("unreachable")

    def get_stream(self, name: str) -> Iterator[bytes]:
        offset = checksum = failures = 0
        first: Answer | None = None
        while True:
            answer = self._open(name, offset, None, first.etag if first else "")
            assert answer is not None, "a range that begins within an object of the same ETag"
            first = first or answer
            try:
                for piece in answer.pieces(PIECE_BYTES):
                    checksum = crc32c.crc32c(piece, checksum)
                    offset, failures = offset + len(piece), 0
                    self._pace.take(len(piece))
                    yield piece
                first.check(checksum)
                return
            except CutOff:
                failures += 1
                if failures == BODY_ATTEMPTS_MAX or offset == first.size:
                    raise  # at the end: what went out cannot be taken back
                self._wait(failures)
            finally:
                answer.close()

    def _open(self, name: str, start: int, length: int | None, etag: str = "") -> Answer | None:
        """An answer whose body is to be read; None behind the object's end."""
        call = self._call("GET", name)
        arguments = {"Bucket": self._bucket, "Key": self._prefix + name}
        whole = start == 0 and length is None
        if whole:
            arguments["ChecksumMode"] = "ENABLED"
        else:
            arguments["Range"] = f"bytes={start}-{'' if length is None else start + length - 1}"
        if etag:
            arguments["IfMatch"] = etag
        try:
            response = self._client.get_object(**arguments)
        except FAILURES as error:
            if status_of(error) == 416 and not etag:
                return None
            if etag and status_of(error) in (412, 416):
                raise TransientError(f"{call}: it was replaced while it was read") from None
            raise told_of(call, error) from None
        return Answer(call, response, start, length, self._meter.note_received)

    def _wait(self, attempt: int) -> None:
        self._sleep(random.uniform(0.0, 0.1 * 2**attempt))

    # Listing and deleting -------------------------------------------------------------------------

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        call = self._call("LIST", prefix)
        arguments: dict[str, Any] = {
            "Bucket": self._bucket, "Prefix": self._prefix + prefix, "MaxKeys": NAMES_AT_ONCE_MAX
        }  # fmt: skip
        if after:
            arguments["StartAfter"] = self._prefix + after
        last = after
        while True:
            with told(call):
                page = self._client.list_objects_v2(**arguments)
            for item in page.get("Contents", ()):
                name = item["Key"].removeprefix(self._prefix)
                if not name:
                    continue  # what some tools make for the sake of a folder
                if name <= last:
                    raise RefusedError(f"{call}: {name} came behind {last}: not in order of names")
                last = name
                yield ObjectInfo(name, item["Size"], item["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, names: Sequence[str]) -> None:
        for first in range(0, len(names), NAMES_AT_ONCE_MAX):
            some = names[first : first + NAMES_AT_ONCE_MAX]
            if self._deletes_many:
                self._delete_many(some)
            if not self._deletes_many:
                self._delete_singly(some)

    def _delete_many(self, names: Sequence[str]) -> None:
        call = self._call("DELETE", f"{names[0]} and {len(names) - 1} more")
        keys = [{"Key": self._prefix + name} for name in names]
        try:
            answer = self._client.delete_objects(
                Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True}
            )
        except FAILURES as error:
            if code_of(error) in WITHOUT_DELETE_OBJECTS:
                self._deletes_many = False
                return
            raise told_of(call, error) from None
        failed = [fault for fault in answer.get("Errors", ()) if fault.get("Code") != "NoSuchKey"]
        if failed:
            first = failed[0]
            kind = RefusedError if first.get("Code") == "AccessDenied" else TransientError
            raise kind(
                f"{call}: {len(failed)} were not deleted, first {first.get('Key')}: "
                f"{first.get('Code')} ({first.get('Message')})"
            )

    def _delete_singly(self, names: Sequence[str]) -> None:
        for name in names:
            with told(self._call("DELETE", name)):
                self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    # ----------------------------------------------------------------------------------------------

    def now(self) -> float:
        if not self._meter.date:
            with told(self._call("LIST", "")):
                self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
        if not self._meter.date:
            raise RefusedError(f"{self.location.url}: the store's answers have no Date")
        return self._meter.date

    def _call(self, verb: str, name: str) -> str:
        return f"{verb} s3://{self._bucket}/{self._prefix}{name}"


def encryption_arguments(encryption: str) -> dict[str, str]:
    """What a PUT says of server-side encryption."""
    if not encryption:
        return {}
    if encryption in ("AES256", "aws:kms", "aws:kms:dsse"):
        return {"ServerSideEncryption": encryption}
    if encryption.startswith("aws:kms:") and len(encryption) > len("aws:kms:"):
        key = encryption.removeprefix("aws:kms:")
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}
    raise RefusedError(f"{ENCRYPTION} = {encryption}: expected AES256, aws:kms or aws:kms:KEY")


def checksum_text(checksum: int) -> str:
    """As S3 writes it."""
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()
