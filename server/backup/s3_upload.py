"""A large object in parts: S3's multipart upload.

The object is there when the last call was answered, and not before: an upload that failed leaves
nothing but parts, which are thrown away (and where that failed too, by a lifecycle rule of the
bucket: docs/s3-endpoints.md).
"""

import base64
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import crc32c

from server.backup.object_store import TransientError
from server.backup.s3_errors import FAILURES, code_of, told, told_of

MIB = 1 << 20
PART_BYTES = 16 * MIB
PARTS_MAX = 10_000
"""S3's own limit."""


def part_size(size: int) -> int:
    """Bytes of each part but the last, for an object of `size` bytes; of one part, if it fits."""
    least = -(-size // PARTS_MAX)
    return max(PART_BYTES, -(-least // MIB) * MIB)


def parts_of(pieces: Iterator[bytes], part_bytes: int, size: int) -> Iterator[bytes]:
    """The same bytes, `part_bytes` at a time; ValueError unless there are `size`."""
    gathered: list[bytes] = []
    count = seen = 0
    for piece in pieces:
        seen += len(piece)
        while count + len(piece) > part_bytes:
            cut = part_bytes - count
            yield b"".join([*gathered, piece[:cut]])
            gathered, count, piece = [], 0, piece[cut:]
        gathered.append(piece)
        count += len(piece)
    if seen != size:
        raise ValueError(f"{seen} bytes came, where {size} were announced")
    yield b"".join(gathered)


def upload_in_parts(
    client: Any,
    call: str,
    key: dict[str, str],
    encryption: dict[str, str],
    parts: Iterator[bytes],
    size: int,
) -> None:
    """`key` is {"Bucket": …, "Key": …}. What `parts` raises ends it."""
    with told(call):
        begun = client.create_multipart_upload(**key, **encryption, ChecksumAlgorithm="CRC32C")
    upload = {**key, "UploadId": begun["UploadId"]}
    try:
        done = [_upload_part(client, call, upload, *part) for part in enumerate(parts, 1)]
        _complete(client, call, key, upload, done, size)
    except BaseException:
        with suppress(*FAILURES):  # what failed is raised; parts that stay are a lifecycle rule's
            client.abort_multipart_upload(**upload)
        raise


def _upload_part(
    client: Any, call: str, upload: dict[str, str], number: int, data: bytes
) -> dict[str, Any]:
    checksum = base64.b64encode(crc32c.crc32c(data).to_bytes(4, "big")).decode()
    with told(f"{call}, part {number}"):
        answer = client.upload_part(**upload, PartNumber=number, Body=data, ChecksumCRC32C=checksum)
    return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32C": checksum}


def _complete(
    client: Any,
    call: str,
    key: dict[str, str],
    upload: dict[str, str],
    parts: list[dict[str, Any]],
    size: int,
) -> None:
    try:
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    except FAILURES as error:
        if code_of(error) != "NoSuchUpload":
            raise told_of(call, error) from None
        # An attempt whose answer was lost may have completed it.
        with told(call):
            if client.head_object(**key)["ContentLength"] == size:
                return
        raise TransientError(f"{call}: the store lost the parts of it") from None
