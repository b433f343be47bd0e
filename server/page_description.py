"""What `pageserver page` says of a page: its header, its checksum, its line pointers."""

from formats import coding, page, page_checksum
from formats import lsn as lsn_text

_FLAGS = {1: "has free line pointers", 2: "full", 4: "all visible"}
_POINTER_STATES = ("unused", "normal", "redirect", "dead")


def describe(data: bytes, block: int) -> list[tuple[str, str]]:
    """Pairs of name and value; `block` is the page's number, which its checksum covers."""
    view = memoryview(data)
    if not any(data):
        return [("content", "all zero: never initialised")]
    lower, upper, special = (coding.u16(view, pos) for pos in (12, 14, 16))
    size_version = coding.u16(view, 18)
    return [
        ("LSN", lsn_text.show(page.lsn(view))),
        ("checksum", _describe_checksum(view, block)),
        ("flags", _describe_flags(coding.u16(view, 10))),
        ("lower", str(lower)),
        ("upper", str(upper)),
        ("special", str(special)),
        ("page size", str(size_version & 0xFF00)),
        ("layout version", str(size_version & 0xFF)),
        ("prune xid", str(coding.u32(view, 20))),
        ("free bytes", str(max(0, upper - lower))),
        ("line pointers", _describe_pointers(view, lower)),
    ]


def _describe_checksum(view: memoryview, block: int) -> str:
    stored = coding.u16(view, 8)
    if stored == 0:
        return "none"
    computed = page_checksum.checksum(view, block)
    # WAL does not carry the checksums of the pages that it changes.
    remark = "right" if stored == computed else f"stale, of this content it is {computed:#06x}"
    return f"{stored:#06x} ({remark})"


def _describe_flags(flags: int) -> str:
    names = [name for bit, name in _FLAGS.items() if flags & bit]
    if flags & ~0x7:
        names.append(f"unknown {flags & ~0x7:#x}")
    return ", ".join(names) or "none"


def _describe_pointers(view: memoryview, lower: int) -> str:
    if not 24 <= lower <= len(view):
        return f"none that can be read: lower is {lower}"
    count = page.max_offset(view)
    states = [page.item_flags(view, n) for n in range(1, count + 1)]
    by_state = [
        f"{states.count(state)} {name}"
        for state, name in enumerate(_POINTER_STATES)
        if state in states
    ]
    return f"{count} ({', '.join(by_state)})" if by_state else str(count)
