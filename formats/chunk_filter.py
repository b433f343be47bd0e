"""Which chunks a server holds: the value of `--chunks`.

    all                              everything
    slru:KIND[/SEGMENT]              an SLRU, or one segment of it; SEGMENT as in its file's name
    rel:SPC/DB/REL[/FORK[/SEGMENT]]  a relation, a fork of it, one segment of a fork
    hash:I/N                         share I (from 0) of N of all relation and SLRU segments

Several, separated by commas, are held together; any field of `slru:` and `rel:` may be `*`. So the
name of a chunk (formats/chunk.py) is a filter for it. Histories, relation maps, small files and
commit times are kept everywhere and match every filter.

The share of a chunk is part of what servers agree on and must never change:

    mix(x)  = murmur3's 64-bit finalizer
    share   = mix(mix(rel + fork * 2^32) xor segment) mod N        an SLRU: rel = its kind, fork = 0

Tablespace and database stay out of it, so that copying a database copies no chunk elsewhere.
"""

import re
from dataclasses import dataclass

from formats.chunk import FORK_NAMES, SLRU_NAMES, ChunkKind

_MASK = (1 << 64) - 1
_OID = r"(\d+|\*)"
_REL = re.compile(rf"rel:{_OID}/{_OID}/{_OID}(?:/([a-z]+|\*)(?:/{_OID})?)?")
_SLRU = re.compile(r"slru:([a-z_]+|\*)(?:/([0-9A-F]{4,8}|\*))?")
_HASH = re.compile(r"hash:(\d+)/(\d+)")
_FORKS = {name: int(fork) for fork, name in FORK_NAMES.items()}
_SLRUS = {name: int(slru) for slru, name in SLRU_NAMES.items()}

FORMS = "all, slru:KIND[/SEGMENT], rel:SPC/DB/REL[/FORK[/SEGMENT]] or hash:I/N"


def share(rel: int, fork: int, seg: int, shares: int) -> int:
    """Which of `shares` servers holds the segment; see above."""
    return _mix(_mix(rel | fork << 32) ^ seg) % shares


def _mix(value: int) -> int:
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & _MASK
    value ^= value >> 33
    value = value * 0xC4CEB9FE1A85EC53 & _MASK
    return value ^ value >> 33


@dataclass(frozen=True)
class _Pattern:
    """Fields of a chunk key; None matches anything."""

    kind: int
    fields: tuple[int | None, ...]

    def matches(self, kind: int, fields: tuple[int, ...]) -> bool:
        if kind != self.kind:
            return False
        pairs = zip(self.fields, fields, strict=True)
        return all(wanted is None or wanted == found for wanted, found in pairs)


@dataclass(frozen=True)
class ChunkFilter:
    """A parsed `--chunks`; `spec` is its text."""

    spec: str
    everything: bool
    patterns: tuple[_Pattern, ...]
    shares: tuple[tuple[int, int], ...]

    def matches(self, kind: int, spc: int, db: int, rel: int, fork: int, seg: int) -> bool:
        """Whether a chunk with this key is held here."""
        if self.everything or kind not in (ChunkKind.REL, ChunkKind.SLRU):
            return True
        if any(share(rel, fork, seg, n) == i for i, n in self.shares):
            return True
        fields = (spc, db, rel, fork, seg)
        return any(pattern.matches(kind, fields) for pattern in self.patterns)


def parse(spec: str) -> ChunkFilter:
    """The filter that a `--chunks` text means; ValueError says which item is wrong, and why."""
    everything = False
    patterns = []
    shares = []
    for item in spec.split(","):
        if item == "all":
            everything = True
        elif match := _HASH.fullmatch(item):
            index, count = int(match[1]), int(match[2])
            if not index < count:
                raise ValueError(f"{item!r}: the share counts from 0 and is below {count}")
            shares.append((index, count))
        else:
            patterns.append(_parse_pattern(item))
    return ChunkFilter(spec, everything, tuple(patterns), tuple(shares))


def _parse_pattern(item: str) -> _Pattern:
    if match := _REL.fullmatch(item):
        spc, db, rel = (_number(item, match[i]) for i in (1, 2, 3))
        fork = _named(item, match[4], _FORKS)
        return _Pattern(ChunkKind.REL, (spc, db, rel, fork, _number(item, match[5])))
    if match := _SLRU.fullmatch(item):
        kind = _named(item, match[1], _SLRUS)
        segment = None if match[2] in (None, "*") else int(match[2], 16)
        return _Pattern(ChunkKind.SLRU, (0, 0, kind, 0, segment))
    raise ValueError(f"{item!r}: expected {FORMS}")


def _number(item: str, text: str | None) -> int | None:
    if text is None or text == "*":
        return None
    if int(text) >= 1 << 32:
        raise ValueError(f"{item!r}: {text} does not fit in 32 bits")
    return int(text)


def _named(item: str, text: str | None, names: dict[str, int]) -> int | None:
    if text is None or text == "*":
        return None
    if text not in names:
        raise ValueError(f"{item!r}: {text!r} is none of {', '.join(names)}")
    return names[text]
