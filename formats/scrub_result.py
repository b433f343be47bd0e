"""What a scrub of a bucket leaves there: when each object was last read back and found whole.

    scrub/<seconds>-<nonce>       seconds since 1970 by the store's clock, 16 hex digits

A line of JSON and one with its CRC-32C in eight hex digits. A result has what earlier ones said of
objects that are still named, too, so that the newest is enough; who reads several takes the later
time of each.
"""

import json
import re
from dataclasses import asdict, dataclass, field

from crc32c import crc32c

from formats.errors import CorruptionError

SCRUBS = "scrub/"
_NAME = re.compile(r"scrub/([0-9a-f]{16})-([0-9a-f]{8})")


@dataclass
class ScrubResult:
    """Seconds are since 1970, by the store's clock."""

    began: int
    ended: int
    serial: int  # of the bucket's chain, as it was read
    is_complete: bool  # all that it names was read
    problems: int
    verified: dict[str, int] = field(default_factory=dict)  # objects, and when each began to come


def result_name(seconds: int, nonce: str) -> str:
    """`nonce`: eight hex digits that no other scrub of that second has."""
    return f"{SCRUBS}{seconds:016x}-{nonce}"


def is_result_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def pack(result: ScrubResult) -> bytes:
    line = json.dumps(asdict(result), sort_keys=True).encode()
    return line + f"\n{crc32c(line):08x}\n".encode()


def unpack(data: bytes, path: str) -> ScrubResult:
    line, _, rest = data.partition(b"\n")
    expected = f"{crc32c(line):08x}\n".encode()
    if rest != expected:
        raise CorruptionError("result of a scrub", path, expected, rest[:100])
    try:
        return ScrubResult(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise CorruptionError("result of a scrub", path, "its fields", error) from error
