"""Where a backup is: `s3://bucket/prefix`, and the endpoint of a store that is not Amazon's."""

import re
from typing import NamedTuple, Self
from urllib.parse import urlsplit

SCHEME = "s3://"
PREFIX_BYTES_MAX = 512
"""S3 allows names of 1,024 bytes; what is below the prefix needs less than half of that."""
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
PREFIX_CHARACTERS = re.compile(r"[A-Za-z0-9!_.*'()/=+@,-]*")


class LocationError(ValueError):
    """Not what the name of a bucket, a prefix or an endpoint may be; the text says what may."""


class Location(NamedTuple):
    """`prefix` is empty or ends with a slash: names are put behind it."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Self:
        if not url.startswith(SCHEME):
            raise LocationError(f"{_harmless(url)!r} is no backup location: {_EXPECTED}")
        bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
        if "@" in bucket or ":" in bucket:
            raise LocationError(
                "a backup location holds no credentials: boto3 finds them in the environment "
                "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), a profile or the machine's role"
            )
        if not BUCKET.fullmatch(bucket):
            raise LocationError(f"{url!r}: {bucket!r} cannot be a bucket's name: {_EXPECTED}")
        prefix = prefix.rstrip("/")
        if not PREFIX_CHARACTERS.fullmatch(prefix):
            raise LocationError(
                f"{url!r}: a prefix may have letters, digits, slashes and !_.*'()=+@,-"
            )
        if prefix and any(part in ("", ".", "..") for part in prefix.split("/")):
            raise LocationError(f"{url!r}: a prefix has no empty part, no '.' and no '..'")
        if len(prefix) > PREFIX_BYTES_MAX:
            raise LocationError(f"{url!r}: the prefix has more than {PREFIX_BYTES_MAX} characters")
        return cls(bucket, prefix + "/" if prefix else "")

    @property
    def url(self) -> str:
        """The same for all ways to write it."""
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")


_EXPECTED = "expected s3://BUCKET or s3://BUCKET/PREFIX"


def check_endpoint(endpoint: str) -> str:
    """The endpoint, if it is the URL of a server and nothing more."""
    try:
        parts = urlsplit(endpoint)
        is_server = bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
    except ValueError:  # a port that is no number
        is_server = False
    if is_server and not (parts.query or parts.fragment or parts.username or parts.password):
        return endpoint
    raise LocationError(
        f"{_harmless(endpoint)!r} is no endpoint: expected http://HOST[:PORT] or "
        "https://HOST[:PORT], without credentials"
    )


def _harmless(text: str) -> str:
    """Without what stands before an @: it may be a password."""
    head, at, tail = text.rpartition("@")
    return f"...@{tail}" if at and head else text
