"""`pageserver lease` and `pageserver point`, and the statements behind them, on a real store."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engine import index_rebuild
from engine.compaction_policy import Policy
from engine.retention import Bounds
from engine.stripe_image import WITH_IMAGES
from formats import lsn as lsn_text
from formats import pagestream as ps
from formats import pgwire
from server import cli, retention_commands
from server.client import PageClient, PageServerError
from server.config import Settings
from server.page_service import PageService
from tests.fixtures.raw_client import RawClient
from tests.fixtures.small_store import REL, SmallStore, create, image, mark_of

TABLE = (*REL, 0)


class Served:
    """A page service over a store whose block 0 changed five times; `lsns` are the ends."""

    def __init__(self, directory: Path) -> None:
        self.small = SmallStore(directory)
        self.lsns = [self.small.put(create(), image(0, 1))]
        self.lsns += [self.small.put(image(0, mark)) for mark in range(2, 6)]
        self.small.flush()
        self.small.reopen()  # with nothing in the page cache
        self.service = PageService(self.small.store, Settings(wait_lsn_timeout=0.1))
        host, port = self.service.start("127.0.0.1", 0)
        self.socket_address = host, port
        self.address = f"{host}:{port}"

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli.app, [*arguments, "--connect", self.address])

    def json(self, *arguments: str) -> list[dict[str, object]]:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        rows: list[dict[str, object]] = json.loads(result.stdout)
        return rows

    def advance(self, number: int) -> None:
        """The horizon, to one of `lsns`."""
        store = self.small.store
        bounds = Bounds(0, store.ready_lsn - self.lsns[number])
        store.retention.step(0, bounds, lambda time: None)

    def text(self, number: int) -> str:
        return lsn_text.show(self.lsns[number])


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)
    served = Served(tmp_path)
    yield served
    served.service.stop()
    served.small.store.close()


def test_leases(served: Served) -> None:
    (made,) = served.json("lease", "create", served.text(1), "--for", "2h", "--name", "nightly")
    assert (made["name"], made["lsn"]) == ("nightly", served.text(1))
    assert 7190 < int(str(made["seconds_left"])) <= 7200
    (drawn,) = served.json("lease", "create", "--for", "1m")
    assert drawn["lsn"] == lsn_text.show(served.small.store.ready_lsn)
    (renewed,) = served.json("lease", "renew", "nightly", "--for", "3d")
    assert int(str(renewed["seconds_left"])) > 250_000
    assert [row["name"] for row in served.json("lease", "list")] == ["nightly", drawn["name"]]
    assert served.json("lease", "drop", "nightly")[0]["name"] == "nightly"
    assert [row["name"] for row in served.json("lease", "list")] == [drawn["name"]]


def test_points(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pageserver.retention")
    assert served.json("point", "list") == []
    (first,) = served.json("point", "create", "now")
    assert first["lsn"] == lsn_text.show(served.small.store.ready_lsn)
    made = {"name": "release-7", "lsn": served.text(2), "commit_time": None, "held_bytes": None}
    assert served.json("point", "create", "release-7", served.text(2)) == [made]
    assert served.json("point", "list") == [made, first]
    assert served.json("point", "drop", "now") == [first]
    assert caplog.messages[0] == f"point now keeps {first['lsn']} from now on"
    assert caplog.messages[-1] == f"point now, which kept {first['lsn']}, was dropped"
    assert served.json("point", "list") == [made]


def bytes_of_pages(served: Served) -> int:
    """Of all layers below L0 but those of chunks without images."""
    index, place, total = served.small.store.layers.index, None, 0
    while stripes := index.stripes_after(place, 100):
        place = stripes[-1][0]
        for (key, _), layers in stripes:
            if key[0] in WITH_IMAGES:
                total += sum(layer.bytes_stored for layer in layers)
    return total


def test_what_a_point_holds_goes_with_it(served: Served) -> None:
    small = served.small
    compactor = small.store.compactor
    assert compactor is not None
    compactor.policy = Policy(l0_bundles_merged_min=1, layers_max=1, debt_versions_per_block=1)
    names = ("first", "second", "third")
    for number, name in enumerate(names):
        for mark in range(5):  # each time another image, and deltas above it
            served.lsns.append(small.put(*(image(block, 10 * number + mark) for block in range(9))))
            small.flush()
            compactor_at_rest(served)
        served.json("point", "create", name)
    assert [row["held_bytes"] for row in served.json("point", "list")] == [0, 0, 0]
    served.lsns.append(small.put(image(0, 99)))
    small.flush()
    compactor_at_rest(served)
    served.advance(len(served.lsns) - 1)
    assert [row["held_bytes"] for row in served.json("point", "list")] == [0, 0, 0]
    compactor_at_rest(served)
    held = {row["name"]: row["held_bytes"] for row in served.json("point", "list")}
    total = small.store.status()["held_bytes"]
    assert held["first"] > 0 and held["second"] > 0  # the horizon has the third one's image too
    assert sum(held.values()) <= total
    lsn = next(str(row["lsn"]) for row in served.json("point", "list"))
    served.json("lease", "create", lsn, "--for", "1h", "--name", "too")
    compactor_at_rest(served)
    assert served.json("lease", "list")[0]["held_bytes"] == 0
    assert served.json("point", "list")[0]["held_bytes"] == 0
    served.json("lease", "drop", "too")
    for name in names:
        now = {row["name"]: row["held_bytes"] for row in served.json("point", "list")}
        before = bytes_of_pages(served)
        served.json("point", "drop", name)
        compactor_at_rest(served)
        assert before - bytes_of_pages(served) == now[name]
    assert small.store.status()["held_bytes"] == 0


def compactor_at_rest(served: Served) -> None:
    for _ in range(300):
        if not served.small.store.compact_step():
            assert served.small.store.status()["compaction"] == "idle"
            return
    raise AssertionError("compaction comes to no end")


def test_tables_align(served: Served) -> None:
    served.run("lease", "create", served.text(0), "--for", "90s", "--name", "a")
    served.run("lease", "create", served.text(1), "--for", "300d", "--name", "a-long-name")
    result = served.run("lease", "list")
    heading, *rows = result.stdout.splitlines()
    assert heading.split() == list(retention_commands.LEASE_COLUMNS)
    assert [row.split()[0] for row in rows] == ["a", "a-long-name"]
    assert len({row.rstrip()[: heading.index("until")].count("/") for row in rows}) == 1
    assert all(row.endswith("not known yet") for row in map(str.rstrip, rows))
    assert len({len(row.rstrip()) for row in rows}) == 1  # numbers end at one place
    assert all("+00" in row for row in rows)
    assert served.run("point", "list").stdout.split() == list(retention_commands.POINT_COLUMNS)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["lease", "create", "0/1", "--for", "2h"], 1, "is below the horizon"),
        (["lease", "create", "FF/0", "--for", "2h"], 1, "was not ready within"),
        (
            ["lease", "create", "--for", "400d"],
            2,
            "34560000 s: expected more than 0 and no more than 31622400 s",
        ),
        (["lease", "create", "--for", "0s"], 2, "more than 0"),
        (["lease", "create", "--for", "2 weeks"], 2, "expected a whole number and s, m, h or d"),
        (["lease", "create", "17", "--for", "2h"], 2, "not an LSN"),
        (["lease", "create"], 2, "--for"),
        (["lease", "create", "--for", "1h", "--name", "a b"], 2, "expected one word"),
        (["lease", "create", "--for", "1h", "--name", "ä"], 2, "1 to 63 letters"),
        (["lease", "renew", "x", "--for", "1h"], 1, "there is no lease x"),
        (["lease", "drop", "x"], 1, "there is no lease x"),
        (["point", "create", "a/b"], 2, "1 to 63 letters"),
        (["point", "create", "a", "0/1"], 1, "exact LSNs of points and leases"),
        (["point", "create", "a", "0/1", "--at", "now"], 2, "exclude each other"),
        (["point", "create", "a", "--at", "soon"], 2, "expected a time such as"),
        (["point", "create", "a", "--at", "1999-01-01"], 1, "the oldest one is"),
        (["point", "drop", "x"], 1, "there is no point x"),
        (["point", "create"], 2, "NAME"),
    ],
)
def test_refusals(served: Served, arguments: list[str], code: int, said: str) -> None:
    result = served.run(*arguments)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr


def test_statements(served: Served) -> None:
    with PageClient(served.address) as client:
        assert len(client.query(f"LEASE Create {served.text(0)} FOR 2H NAME Mine;")) == 1
        assert client.query("lease create for 1m name for")[0][0] == b"for"
        assert len(client.query("lease list")) == 2
        for wrong in (
            "lease",
            "lease create",
            "lease create for",
            "lease create 0/1 2h",
            "lease create for 2h name",
            "lease create for 2h called x",
            "lease create 0/1 0/2 for 2h",
            "lease renew Mine 2h",
            "lease list all",
            "lease keep 0/1",
            "point create",
            "point create a 0/1 b",
            "point drop",
            "point list x",
        ):
            with pytest.raises(PageServerError, match="unknown statement.*lease create .LSN. for"):
                client.query(wrong)
        with pytest.raises(PageServerError, match="as in 2h"):
            client.query("lease create for soon")
        with pytest.raises(PageServerError, match="is in the future: here it is 2"):
            client.query("point create later at '2999-01-01'")


def test_what_is_kept_is_read_and_nothing_else_below_the_horizon(served: Served) -> None:
    with PageClient(served.address) as client:
        client.query(f"lease create {served.text(1)} for 1h name mine")
        served.advance(3)
        for _ in range(2):  # from layers, then from the page cache
            page = client.get_pages(*TABLE, 0, 1, served.lsns[1])
            assert mark_of(page) == 2
        assert client.nblocks(*TABLE, served.lsns[1]) == 1
        assert client.relations(served.lsns[1]) == [(*TABLE, 1)]
        assert client.query(f"get_page 1663 5 16384 main 0 {served.text(1)}")
        for ask in (
            lambda: client.get_pages(*TABLE, 0, 1, served.lsns[2]),
            lambda: client.nblocks(*TABLE, served.lsns[2]),
            lambda: client.query(f"show files {served.text(2)}"),
        ):
            with pytest.raises(PageServerError) as refused:
                ask()
            assert f"below the horizon {served.text(3)}, the oldest LSN" in str(refused.value)
        status = client.status()
        assert status["horizon_lsn"] == served.text(3)
        assert status["retained_lsn"] == served.text(1)
        assert (status["lease_count"], status["point_count"]) == (1, 0)
        client.query("lease drop mine")
        with pytest.raises(PageServerError, match="below the horizon"):
            client.get_pages(*TABLE, 0, 1, served.lsns[1])


def test_a_batch_has_more_than_one_lsn(served: Served) -> None:
    """Requests for kept, other and new LSNs, sent together: each has the answer of its own."""
    store = served.small.store
    store.retention.create_point("a", served.lsns[0])
    store.retention.create_point("b", served.lsns[2])
    served.advance(3)
    ids = store.ids
    assert ids is not None
    for order in ([0, 0, 4, 2, 0], [4, 2, 1, 0, 3], [1, 2, 2, 3, 1], [0] * 200):
        requests = [
            ps.request(ps.GET_PAGE, number, served.lsns[i], served.lsns[i], ps.page_body(*TABLE, 0))
            for number, i in enumerate(order)
        ]
        with RawClient(served.socket_address) as client:
            client.enter_page_stream(ids.tenant, ids.timeline)
            client.send(b"".join(pgwire.copy_data(request) for request in requests))
            for i, request in zip(order, requests, strict=True):
                value, error = client.value(request)
                if i == 1:
                    assert "below the horizon" in error
                else:
                    assert mark_of(value) == i + 1
