"""Page requests: any of them survive the way through bytes, in any chunking; noise does no harm."""

import struct
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from formats import pagestream as ps
from formats import pgwire
from formats.pagestream import PageBatch

u8, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 32, 64))
CAPACITY = 8


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    relation = st.builds(ps.relation_body, u32, u32, u32, u8)
    pages = st.builds(ps.page_body, u32, u32, u32, u8, u32)
    tag = draw(st.sampled_from([0, 1, 2, 2, 2, 2, 3, 4]))
    bodies = [relation, relation, pages, st.builds(ps.database_body, u32)]
    bodies.append(st.builds(ps.slru_body, u8, u32))
    return ps.request(tag, draw(u64), draw(u64), draw(u64), draw(bodies[tag]))


def columns_of(request: bytes) -> tuple[int, ...]:
    """What must stand in the columns for a request: an independent reading of its bytes."""
    tag, _, lsn, since = struct.unpack_from(">BQQQ", request)
    body = request[25:]
    if tag == ps.DB_SIZE:
        return tag, lsn, since, *struct.unpack(">I", body)
    if tag == ps.GET_SLRU_SEGMENT:
        return tag, lsn, since, *struct.unpack(">BI", body)
    return tag, lsn, since, *struct.unpack(">IIIBI" if tag == ps.GET_PAGE else ">IIIB", body)


def row(batch: PageBatch, i: int) -> tuple[int, ...]:
    head = (batch.tag, batch.request_lsn[i], batch.not_modified_since[i])
    if batch.tag == ps.DB_SIZE:
        return *head, batch.db[i]
    if batch.tag == ps.GET_SLRU_SEGMENT:
        return *head, batch.fork[i], batch.block[i]
    relation = (batch.spc[i], batch.db[i], batch.rel[i], batch.fork[i])
    return (*head, *relation, batch.block[i]) if batch.tag == ps.GET_PAGE else (*head, *relation)


def new_batch(size: int) -> tuple[PageBatch, bytearray]:
    buffer = bytearray(size)
    replies = memoryview(bytearray(CAPACITY * ps.PAGE_REPLY_BYTES))
    return PageBatch(CAPACITY, memoryview(buffer), replies), buffer


@given(st.lists(requests(), max_size=30), st.lists(st.integers(1, 200), max_size=20))
def test_requests_in_any_chunking(sent: Sequence[bytes], cuts: Sequence[int]) -> None:
    data = b"".join(pgwire.copy_data(request) for request in sent)
    batch, buffer = new_batch(len(data) + 1)
    found = []
    pos = end = 0
    for cut in [*cuts, len(data)]:
        there = min(end + cut, len(data))
        buffer[end:there] = data[end:there]
        end = there
        while True:
            pos = batch.parse(pos, end)
            if not batch.count:
                assert batch.stop == ps.NEED_MORE
                break
            found += [row(batch, i) for i in range(batch.count)]
    assert pos == len(data)
    assert found == [columns_of(request) for request in sent]


@given(requests(), st.binary(max_size=100))
def test_replies_are_told_apart(request: bytes, value: bytes) -> None:
    framed = pgwire.copy_data(request)
    batch, buffer = new_batch(len(framed))
    buffer[:] = framed
    batch.parse(0, len(framed))
    if request[0] != ps.GET_PAGE:
        assert ps.parse_reply(request, batch.reply(value)[5:]) == (value, "")
    assert ps.parse_reply(request, batch.error_reply(0, "gone")[5:]) == (b"", "gone")


@given(st.lists(st.one_of(st.binary(max_size=60), requests().map(pgwire.copy_data))))
def test_noise(pieces: Sequence[bytes]) -> None:
    """Whatever the bytes, the parser takes whole requests or says why it does not."""
    data = b"".join(pieces)
    batch, buffer = new_batch(len(data) + 1)
    buffer[: len(data)] = data
    pos = 0
    while True:
        before = pos
        pos = batch.parse(pos, len(data))
        assert before <= pos <= len(data) and pos == batch.end
        if not batch.count:
            assert batch.stop in (ps.NEED_MORE, ps.CONTROL, ps.MALFORMED)
            assert pos == before
            break
        assert pos > before
        batch.resolve(1000, 1000, 10, 0)
        assert 0 <= batch.count <= CAPACITY


@given(u64, u64, u64, u64, u64, st.one_of(u64, st.none()))
def test_the_rule_is_the_reference_s(
    lsn: int, since: int, ready: int, waited: int, horizon: int, other: int | None
) -> None:
    retained = lsn if other is None else other
    reached = max(ready, waited)
    framed = pgwire.copy_data(ps.request(ps.DB_SIZE, 1, lsn, since, ps.database_body(5)))
    batch, buffer = new_batch(len(framed))
    buffer[:] = framed
    batch.parse(0, len(framed))
    answerable = batch.resolve(ready, reached, horizon, retained)
    is_lost = lsn < horizon and lsn != retained
    if lsn == 0 or lsn < since or is_lost or reached < horizon:
        assert batch.refusal and answerable
    elif since > reached:
        assert not answerable
    else:
        assert answerable and not batch.refusal
        assert batch.lsn[0] == (since if since > ready else min(ready, lsn))
