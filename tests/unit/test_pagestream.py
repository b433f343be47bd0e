"""Page requests and replies: golden frames, the two-LSN rule, batches and where they end."""

import re
from pathlib import Path

import pytest

from formats import pagestream as ps
from formats import pgwire
from formats.pagestream import LATEST_LSN, PageBatch

GOLDEN = Path(__file__).parents[1] / "golden" / "pagestream"
REQID = 0x1122334455667788
REQUEST_LSN = 0xABCDEF010
SINCE = 0xABCDE0000
RELATION = (1663, 5, 16384, 2)
BLOCK = 0x01020304

# golden file -> (tag, body, value of the reply)
MESSAGES = {
    "exists": (ps.EXISTS, ps.relation_body(*RELATION), ps.exists_value(True)),
    "nblocks": (ps.NBLOCKS, ps.relation_body(*RELATION), ps.nblocks_value(123456)),
    "get_page": (ps.GET_PAGE, ps.page_body(*RELATION, BLOCK), b"\x5a" * 8192),
    "db_size": (ps.DB_SIZE, ps.database_body(5), ps.db_size_value(0x123456000)),
    "get_slru_segment": (ps.GET_SLRU_SEGMENT, ps.slru_body(3, 31), ps.slru_value(b"\xa5" * 16384)),
    "error": (ps.GET_PAGE, ps.page_body(*RELATION, BLOCK), None),
}


def golden(name: str) -> dict[str, bytes]:
    """The frames of a golden file: hex digits, `XX*N` for a run, then spaces and a remark."""
    frames: dict[str, bytes] = {}
    for line in (GOLDEN / f"{name}.txt").read_text().splitlines():
        word = line.split("    ")[0]
        if line in ("request", "reply"):
            frames[line] = b""
            current = line
        elif run := re.fullmatch(r"([0-9a-f]{2})\*(\d+)", word):
            frames[current] += bytes.fromhex(run[1]) * int(run[2])
        elif re.fullmatch(r"([0-9a-f]{2})+", word):
            frames[current] += bytes.fromhex(word)
        else:
            assert not line or line.startswith("#")
    return frames


def batch_of(data: bytes, capacity: int = 4) -> PageBatch:
    replies = memoryview(bytearray(capacity * ps.PAGE_REPLY_BYTES))
    return PageBatch(capacity, memoryview(bytearray(data.ljust(64, b"\xee"))), replies)


def frame(
    tag: int = ps.GET_PAGE,
    lsn: int = 500,
    since: int | None = None,
    body: bytes | None = None,
    reqid: int = 1,
) -> bytes:
    body = ps.page_body(*RELATION, BLOCK) if body is None else body
    since = lsn if since is None else since
    return pgwire.copy_data(ps.request(tag, reqid, lsn, since, body))


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_request(name: str) -> None:
    tag, body, _ = MESSAGES[name]
    wanted = golden(name)["request"]
    assert pgwire.copy_data(ps.request(tag, REQID, REQUEST_LSN, SINCE, body)) == wanted
    batch = batch_of(wanted)
    assert batch.parse(0, len(wanted)) == len(wanted)
    assert (batch.count, batch.tag) == (1, tag)
    assert (batch.request_lsn[0], batch.not_modified_since[0]) == (REQUEST_LSN, SINCE)
    if tag == ps.DB_SIZE:
        assert batch.db[0] == 5
    elif tag == ps.GET_SLRU_SEGMENT:
        assert (batch.fork[0], batch.block[0]) == (3, 31)
    else:
        assert (batch.spc[0], batch.db[0], batch.rel[0], batch.fork[0]) == RELATION
    if tag == ps.GET_PAGE:
        assert batch.block[0] == BLOCK


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_reply(name: str) -> None:
    tag, body, value = MESSAGES[name]
    frames = golden(name)
    batch = batch_of(frames["request"])
    batch.parse(0, len(frames["request"]))
    if value is None:
        reply = batch.error_reply(0, "no such rel")
    elif tag == ps.GET_PAGE:
        length = batch.frame_pages()
        pos = batch.out_pos[0]
        batch.replies[pos : pos + ps.PAGE_BYTES] = value
        reply = bytes(batch.replies[:length])
    else:
        reply = batch.reply(value)
    assert reply == frames["reply"]
    request = ps.request(tag, REQID, REQUEST_LSN, SINCE, body)
    wanted = (b"", "no such rel") if value is None else (value, "")
    assert ps.parse_reply(request, frames["reply"][5:]) == wanted


@pytest.mark.parametrize("name", MESSAGES)
def test_a_reply_with_one_wrong_bit_is_noticed(name: str) -> None:
    tag, body, value = MESSAGES[name]
    request = ps.request(tag, REQID, REQUEST_LSN, SINCE, body)
    reply = golden(name)["reply"][5:]
    for pos in range(25 if value is None else len(request)):
        wrong = bytearray(reply)
        wrong[pos] ^= 0x10
        with pytest.raises(ValueError, match="belong to its request|echo its request"):
            ps.parse_reply(request, bytes(wrong))


def test_a_batch_is_the_longest_run_of_page_requests() -> None:
    pages = [frame(reqid=i) for i in range(6)]
    nblocks = frame(ps.NBLOCKS, body=ps.relation_body(*RELATION))
    data = b"".join(pages) + nblocks + pages[0] + pages[1][:20]
    batch = batch_of(data)
    found = []
    pos = 0
    while True:
        pos = batch.parse(pos, len(data))
        if not batch.count:
            break
        found.append((batch.tag, batch.count))
    assert found == [(ps.GET_PAGE, 4), (ps.GET_PAGE, 2), (ps.NBLOCKS, 1), (ps.GET_PAGE, 1)]
    assert pos == len(data) - 20
    assert batch.stop == ps.NEED_MORE


@pytest.mark.parametrize("tag", range(5))
def test_a_frame_that_is_not_all_there_is_not_taken(tag: int) -> None:
    bodies = [13, 13, 17, 4, 5]
    data = frame(tag, body=bytes(bodies[tag]))
    batch = batch_of(data)
    for end in range(len(data)):
        assert batch.parse(0, end) == 0
        assert (batch.count, batch.stop) == (0, ps.NEED_MORE)
    assert batch.parse(0, len(data)) == len(data)
    assert batch.count == 1


@pytest.mark.parametrize(
    "data",
    [
        pgwire.copy_data(b""),
        frame(tag=5),
        frame(tag=99),
        frame(tag=255),
        frame(ps.GET_PAGE, body=bytes(13)),
        frame(ps.EXISTS, body=bytes(17)),
        frame(ps.DB_SIZE, body=bytes(5)),
        frame(ps.GET_SLRU_SEGMENT, body=bytes(4)),
        b"d\xff\xff\xff\xff",
        b"d\x00\x00\x00\x00",
        b"d\x7f\xff\xff\xff",
    ],
)
def test_malformed(data: bytes) -> None:
    batch = batch_of(data)
    assert batch.parse(0, len(data)) == 0
    assert (batch.count, batch.stop) == (0, ps.MALFORMED)


def test_other_messages_are_left_to_the_connection() -> None:
    data = frame() + pgwire.copy_done()
    batch = batch_of(data)
    pos = batch.parse(0, len(data))
    assert batch.count == 1
    assert batch.parse(pos, len(data)) == pos
    assert (batch.count, batch.stop) == (0, ps.CONTROL)


def resolve(requests: list[bytes], ready: int, reached: int, horizon: int) -> PageBatch:
    data = b"".join(requests)
    batch = batch_of(data)
    batch.parse(0, len(data))
    batch.resolve(ready, reached, horizon, 0)
    return batch


@pytest.mark.parametrize(
    ("lsn", "since", "answered_at"),
    [
        (500, 500, 500),  # exactly there
        (500, 400, 500),
        (900, 500, 800),  # no later than what is ready
        (800, 800, 800),
        (LATEST_LSN, 500, 800),
        (LATEST_LSN, 0, 800),
        (100, 0, 100),  # the horizon itself can be read
    ],
)
def test_the_lsn_of_an_answer(lsn: int, since: int, answered_at: int) -> None:
    batch = resolve([frame(lsn=lsn, since=since)], 800, 800, 100)
    assert (batch.count, batch.refusal) == (1, 0)
    assert batch.lsn[0] == answered_at


@pytest.mark.parametrize(
    ("lsn", "since", "horizon", "refusal"),
    [
        (0, 0, 100, ps.ZERO_LSN),
        (400, 500, 100, ps.LSN_ORDER),
        (900, 901, 100, ps.LSN_ORDER),
        (99, 0, 100, ps.BELOW_HORIZON),
        (LATEST_LSN, 500, 801, ps.NOT_COMPLETE),
        (10, 0, 801, ps.NOT_COMPLETE),
    ],
)
def test_refusals(lsn: int, since: int, horizon: int, refusal: int) -> None:
    batch = resolve([frame(lsn=lsn, since=since)], 800, 800, horizon)
    assert (batch.count, batch.refusal) == (1, refusal)


def test_one_lsn_below_the_horizon_may_be_retained() -> None:
    data = b"".join(frame(lsn=lsn, since=0) for lsn in (70, 70, 800, 71, 70))
    batch = batch_of(data)
    batch.parse(0, len(data))
    assert batch.resolve(800, 800, 100, 70) == 3
    assert list(batch.lsn[:3]) == [70, 70, 800]
    batch.parse(batch.end, len(data))
    assert batch.resolve(800, 800, 100, 70) == 1
    assert (batch.count, batch.refusal) == (1, ps.BELOW_HORIZON)
    batch.parse(batch.end, len(data))
    assert batch.resolve(800, 800, 100, 70) == 1
    assert (batch.refusal, batch.lsn[0]) == (0, 70)


def test_only_not_modified_since_waits() -> None:
    waiting = frame(lsn=LATEST_LSN, since=801)
    batch = resolve([waiting], 800, 800, 100)
    assert batch.resolve(800, 800, 100, 0) == 0
    assert batch.resolve(800, 850, 100, 0) == 1
    assert batch.lsn[0] == 801  # what it waited for, not what is ready by then
    batch.refuse(ps.TIMED_OUT)
    assert batch.refusal == ps.TIMED_OUT


@pytest.mark.parametrize(
    "middle",
    [
        frame(lsn=LATEST_LSN, since=801),
        frame(lsn=0),
        frame(lsn=50),
        frame(body=ps.page_body(1663, 5, 16384, 4, 0)),
    ],
)
def test_a_batch_is_cut_before_a_request_that_waits_or_is_refused(middle: bytes) -> None:
    data = frame() + frame(lsn=700) + middle + frame()
    batch = batch_of(data)
    batch.parse(0, len(data))
    assert batch.count == 4
    assert batch.resolve(800, 800, 100, 0) == 2
    assert (batch.count, batch.end, batch.refusal) == (2, 94, 0)
    assert list(batch.lsn[:2]) == [500, 700]
    batch.parse(batch.end, len(data))
    if batch.resolve(800, 800, 100, 0) == 0:
        batch.refuse(ps.TIMED_OUT)
    assert (batch.count, batch.end) == (1, 141)
    assert batch.refusal
    batch.parse(batch.end, len(data))
    assert batch.resolve(800, 800, 100, 0) == 1
    assert (batch.refusal, batch.end) == (0, len(data))


def test_failed_pages_become_errors_between_the_others() -> None:
    data = b"".join(frame(reqid=i) for i in range(4))
    batch = batch_of(data)
    batch.parse(0, len(data))
    batch.resolve(800, 800, 100, 0)
    batch.frame_pages()
    assert batch.failed() == 0
    for i in (0, 2):
        batch.status[i] = 1
    batch.errors[0] = "nul\0 in it"
    assert batch.failed() == 2
    sent = b"".join(bytes(part) for part in batch.page_parts())
    payloads = []
    while sent:
        length = int.from_bytes(sent[1:5], "big") + 1
        payloads.append(sent[5:length])
        sent = sent[length:]
    requests = [data[i * 47 + 5 : (i + 1) * 47] for i in range(4)]
    results = [ps.parse_reply(*pair) for pair in zip(requests, payloads, strict=True)]
    page = bytes(ps.PAGE_BYTES)
    wanted = [(b"", "nul? in it"), (page, ""), (b"", "the page cannot be read"), (page, "")]
    assert results == wanted
    batch.parse(0, len(data))
    assert batch.failed() == 0 and not batch.errors


def test_an_error_text_is_bounded() -> None:
    data = frame()
    batch = batch_of(data)
    batch.parse(0, len(data))
    assert len(batch.error_reply(0, "x" * 100_000)) < 2 * ps.ERROR_BYTES_MAX


def test_a_reply_buffer_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="too small for the batch"):
        PageBatch(2, memoryview(bytearray(64)), memoryview(bytearray(ps.PAGE_REPLY_BYTES)))
