"""The inputs that fuzzing starts from: tests/fuzz_corpus/<target>/.

seeds.zst     zstd of msgpack {name: bytes}: what tools/fuzz/gather.py took from real servers
*.input       one input each that once failed, named after what it did; always run first
"""

from collections.abc import Mapping
from pathlib import Path

import msgpack
import zstandard

DIRECTORY = Path(__file__).parents[2] / "tests" / "fuzz_corpus"
ZSTD_LEVEL = 22


def failures(target: str) -> dict[str, bytes]:
    """The inputs that ever failed, by file name."""
    paths = sorted((DIRECTORY / target).glob("*.input"))
    return {path.name: path.read_bytes() for path in paths}


def seeds(target: str) -> dict[str, bytes]:
    """What was gathered, by name."""
    packed = (DIRECTORY / target / "seeds.zst").read_bytes()
    content: dict[str, bytes] = msgpack.unpackb(zstandard.decompress(packed))
    return content


def inputs(target: str) -> list[bytes]:
    """All of them, in an order that only new ones change."""
    return [*seeds(target).values(), *failures(target).values()]


def write_seeds(target: str, content: Mapping[str, bytes]) -> int:
    """Replace what was gathered; returns the bytes it takes."""
    ordered = {name: content[name] for name in sorted(content)}
    packed = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(msgpack.packb(ordered))
    path = DIRECTORY / target / "seeds.zst"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed)
    return len(packed)
