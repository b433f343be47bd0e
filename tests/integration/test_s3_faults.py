"""Everything that happens to a request on its way, to every call of the store on S3.

One fault is made good: boto3 asks again, and so does the store for a body that was cut off. What
was changed on the way is refused by one side or the other. A lasting fault is a TransientError, and
never short or wrong bytes.
"""

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from server.backup import s3_client, s3_upload
from server.backup.conditional_put import probe
from server.backup.object_store import NotThereError, RefusedError, TakenError, TransientError
from server.backup.s3_store import S3Store
from tests.fixtures.s3_proxy import Fault, S3Proxy
from tests.fixtures.s3_server import Bucket
from tools.s3_server import S3Server

SMALL = b"some bytes of an object " * 100
PART_BYTES = 5 << 20
LARGE = bytes(range(256)) * (21 << 10)  # two parts
SECONDS_MAX = 0.5
NUMBERS = count()


class World:
    """A bucket for the whole module, reached through a proxy and without it."""

    def __init__(self, server: S3Server, proxy: S3Proxy) -> None:
        self.proxy = proxy
        url = f"s3://{server.new_bucket('faults')}/p"
        self._seen = S3Store(url, server.endpoint)
        self._faulty = S3Store(url, proxy.endpoint)

    def stores(self, new: bool = False) -> tuple[S3Store, S3Store, str]:
        """The one through the proxy, the one that sees what is there, and a name of no object.

        A new one has all its retries still, and so has the next."""
        url = self._faulty.location.url
        faulty = (
            S3Store(url, self.proxy.endpoint, sleep=lambda seconds: None) if new else self._faulty
        )
        return faulty, self._seen, f"n{next(NUMBERS)}/x"


@pytest.fixture(scope="module")
def world(s3_server: S3Server) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch, S3Proxy(s3_server) as proxy:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        patch.setattr(s3_client, "READ_SECONDS_MAX", SECONDS_MAX)
        patch.setattr(s3_upload, "PART_BYTES", PART_BYTES)
        backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
        patch.setattr(backoff, lambda self, context: 0.001)
        yield World(s3_server, proxy)


MADE_GOOD = (
    Fault.DROP_REQUEST,
    Fault.DROP_ANSWER,
    Fault.DELAY,
    Fault.TWICE,
    Fault.ANSWER_500,
    Fault.ANSWER_503,
    Fault.ANSWER_429,
)


def put(store: S3Store, name: str) -> None:
    store.put(name, SMALL)


def put_new(store: S3Store, name: str) -> None:
    """As whoever calls it must: a name that is taken may be an earlier attempt's."""
    try:
        store.put_new(name, SMALL)
    except TakenError:
        assert store.get(name) == SMALL


def put_large(store: S3Store, name: str) -> None:
    store.put_stream(name, (LARGE[at : at + 99_999] for at in range(0, len(LARGE), 99_999)),
                     len(LARGE))  # fmt: skip


WRITES: dict[str, tuple[Callable[[S3Store, str], None], str, str, bytes]] = {
    "put": (put, "PUT", "", SMALL),
    "put_new": (put_new, "PUT", "", SMALL),
    "multipart_begin": (put_large, "POST", "uploads", LARGE),
    "multipart_part": (put_large, "PUT", "partNumber=2", LARGE),
    "multipart_end": (put_large, "POST", "uploadId", LARGE),
}


@pytest.mark.parametrize("fault", [*MADE_GOOD, Fault.CUT_REQUEST], ids=lambda one: one.name)
@pytest.mark.parametrize("call", WRITES)
def test_a_write_is_made_good(world: World, call: str, fault: Fault) -> None:
    write, method, part, expected = WRITES[call]
    if fault is Fault.CUT_REQUEST and call == "multipart_begin":
        return  # it has no body
    if fault is Fault.DELAY and call in ("multipart_begin", "multipart_part"):
        return  # half a second each, and tested with the others
    store, seen, name = world.stores()
    world.proxy.fault(fault, method, part, seconds=2 * SECONDS_MAX if fault is Fault.DELAY else 0.0)
    met = len(world.proxy.met)
    write(store, name)
    assert world.proxy.met[met:] == [fault]
    assert seen.get(name) == expected


@pytest.mark.parametrize("call", ["put", "put_new", "multipart_part"])
def test_a_byte_flipped_in_a_write_is_refused_by_the_store(world: World, call: str) -> None:
    write, method, part, _ = WRITES[call]
    store, seen, name = world.stores()
    world.proxy.fault(Fault.FLIP_REQUEST, method, part)
    with pytest.raises(TransientError, match=f"PUT s3://.*{name}"):
        write(store, name)
    with pytest.raises(NotThereError):
        seen.get(name)


READS: dict[str, Callable[[S3Store, str], bytes]] = {
    "get": lambda store, name: store.get(name),
    "get_range": lambda store, name: store.get(name, 0, len(SMALL)),
    "get_stream": lambda store, name: b"".join(store.get_stream(name)),
}


@pytest.mark.parametrize(
    "fault", [*MADE_GOOD, Fault.CUT_ANSWER, Fault.FLIP_ANSWER], ids=lambda one: one.name
)
@pytest.mark.parametrize("call", READS)
def test_a_read_is_made_good(world: World, call: str, fault: Fault) -> None:
    if fault is Fault.FLIP_ANSWER and call == "get_range":
        return  # S3 has no checksums of ranges: they are found wrong by the format's own
    store, seen, name = world.stores()
    seen.put(name, SMALL)
    world.proxy.fault(fault, "GET", seconds=2 * SECONDS_MAX if fault is Fault.DELAY else 0.0)
    met = len(world.proxy.met)
    if fault is Fault.FLIP_ANSWER and call == "get_stream":
        with pytest.raises(TransientError, match="CRC-32C"):  # its bytes went out: no second try
            READS[call](store, name)
        return
    assert READS[call](store, name) == SMALL
    assert world.proxy.met[met:] == [fault]


def test_a_stream_goes_on_where_it_was_cut_off(world: World) -> None:
    store, seen, name = world.stores()
    put_large(seen, name)
    world.proxy.fault(Fault.CUT_ANSWER, "GET", times=3)
    assert b"".join(store.get_stream(name)) == LARGE
    assert world.proxy.requests[-4:] == 4 * [world.proxy.requests[-1]]


def test_a_stream_that_goes_on_is_checked_as_a_whole(world: World) -> None:
    store, seen, name = world.stores()
    seen.put(name, SMALL)
    world.proxy.fault(Fault.CUT_ANSWER, "GET")
    world.proxy.fault(Fault.FLIP_ANSWER, "GET", nth=2)
    with pytest.raises(TransientError, match="CRC-32C"):
        list(store.get_stream(name))


def test_a_stream_of_an_object_that_is_replaced_ends(world: World) -> None:
    store, seen, name = world.stores()
    put_large(seen, name)
    world.proxy.fault(Fault.CUT_ANSWER, "GET")
    stream = store.get_stream(name)
    next(stream)
    seen.put(name, SMALL)
    with pytest.raises(TransientError, match="replaced"):
        for _ in stream:
            pass


@pytest.mark.parametrize("fault", MADE_GOOD, ids=lambda one: one.name)
def test_listing_and_deleting_are_made_good(world: World, fault: Fault) -> None:
    store, seen, name = world.stores()
    names = [f"{name}{number}" for number in range(3)]
    for one in names:
        seen.put(one, b"x")
    seconds = 2 * SECONDS_MAX if fault is Fault.DELAY else 0.0
    world.proxy.fault(fault, "GET", "list-type", seconds=seconds)
    world.proxy.fault(fault, "POST", "delete", seconds=seconds)
    met = len(world.proxy.met)
    assert [found.name for found in store.list(name)] == names
    store.delete(names[:2])
    assert world.proxy.met[met:] == [fault, fault]
    assert [found.name for found in seen.list(name)] == names[2:]


LASTING = (Fault.DROP_REQUEST, Fault.DROP_ANSWER, Fault.ANSWER_500, Fault.ANSWER_503,
           Fault.ANSWER_429, Fault.CUT_ANSWER)  # fmt: skip


@pytest.mark.parametrize("fault", LASTING, ids=lambda one: one.name)
def test_a_lasting_fault_is_said(world: World, fault: Fault) -> None:
    store, seen, name = world.stores(new=True)
    seen.put(name, SMALL)
    for method in ("GET", "PUT", "POST"):
        world.proxy.fault(fault, method, times=1000)
    calls: list[Callable[[], object]] = [
        lambda read=read: read(store, name) for read in READS.values()
    ]
    if fault is not Fault.CUT_ANSWER:
        calls += [
            lambda: store.put("other", SMALL),
            lambda: put_large(store, "other"),
            lambda: list(store.list(name)),
            lambda: store.delete([name]),
        ]
    try:
        for call in calls:
            with pytest.raises(TransientError, match="s3://"):
                call()
    finally:
        world.proxy.forget()


def test_a_store_that_lacks_a_call(world: World) -> None:
    store, seen, name = world.stores(new=True)
    names = [f"{name}{number}" for number in range(3)]
    for one in names:
        seen.put(one, b"x")
    world.proxy.fault(Fault.ANSWER_501, "POST", "delete", times=1000)
    world.proxy.fault(Fault.ANSWER_501, "PUT", "manifest/")
    try:
        store.delete(names)
        assert list(seen.list(name)) == []
        with pytest.raises(RefusedError, match="NotImplemented.*fencing = off"):
            store.put_new("manifest/1", b"x")
    finally:
        world.proxy.forget()


def test_what_a_writer_raises_leaves_no_object(world: World) -> None:
    store, seen, name = world.stores()

    def pieces() -> Iterator[bytes]:
        yield LARGE[: PART_BYTES + 1]
        raise InterruptedError("no more")

    with pytest.raises(InterruptedError):
        store.put_stream(name, pieces(), len(LARGE))
    with pytest.raises(ValueError, match="1 bytes came"):
        store.put_stream(name, iter([b"x"]), 2)
    assert list(seen.list(name)) == []
    assert world.proxy.requests[-1].startswith("DELETE /")


def test_a_store_that_ignores_conditions_is_refused(s3_bucket: Bucket) -> None:
    with S3Proxy(s3_bucket.server, frozenset({"if-none-match"})) as proxy:
        store = S3Store(s3_bucket.url, proxy.endpoint)
        with pytest.raises(RefusedError, match="ignores If-None-Match.*fencing = off"):
            probe(store, "nonce")
        assert list(store.list("")) == []
        alone = S3Store(s3_bucket.url, proxy.endpoint, conditional=False)
        alone.put_new("name", b"first")
        with pytest.raises(TakenError):
            alone.put_new("name", b"second")
        assert alone.get("name") == b"first"


def test_the_probe_bears_a_lost_answer(world: World) -> None:
    store, seen, name = world.stores()
    for nth in (1, 2):
        world.proxy.fault(Fault.DROP_ANSWER, "PUT", "probe", nth=nth)
    probe(store, name)
    assert list(seen.list("probe")) == []
