"""Cutting a stream into parts, within S3's limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.backup.object_store import RefusedError
from server.backup.s3_store import encryption_arguments
from server.backup.s3_upload import MIB, PART_BYTES, PARTS_MAX, part_size, parts_of

TIB = 1 << 40


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES * PARTS_MAX, TIB, 5 * TIB])
def test_parts_are_never_too_many_nor_too_small(size: int) -> None:
    each = part_size(size)
    assert each % MIB == 0 and each >= PART_BYTES
    assert -(-size // each) <= PARTS_MAX


@given(st.lists(st.binary(max_size=20)), st.integers(1, 30))
def test_parts_are_the_pieces(pieces: list[bytes], part_bytes: int) -> None:
    whole = b"".join(pieces)
    parts = list(parts_of(iter(pieces), part_bytes, len(whole)))
    assert b"".join(parts) == whole
    assert all(len(part) == part_bytes for part in parts[:-1])
    assert 0 < len(parts[-1]) <= part_bytes or not whole and parts == [b""]


@pytest.mark.parametrize("size", [2, 4])
def test_as_many_bytes_as_were_announced(size: int) -> None:
    with pytest.raises(ValueError, match=f"3 bytes came, where {size} were announced"):
        list(parts_of(iter([b"abc"]), 10, size))


def test_encryption() -> None:
    assert encryption_arguments("") == {}
    assert encryption_arguments("AES256") == {"ServerSideEncryption": "AES256"}
    assert encryption_arguments("aws:kms") == {"ServerSideEncryption": "aws:kms"}
    assert encryption_arguments("aws:kms:alias/mine") == {
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "alias/mine",
    }
    for wrong in ("aes", "aws:kms:", "none"):
        with pytest.raises(RefusedError, match="expected AES256"):
            encryption_arguments(wrong)
