"""The page service on real sockets: psql and page streams."""

import signal
import subprocess
import time
from dataclasses import replace

import pytest

from engine.errors import RequestError
from formats import lsn as lsn_text
from formats import pagestream as ps
from formats import pgwire
from formats.errors import CorruptionError
from server.client import ConnectError, PageClient, PageServerError
from tests.fixtures.fake_store import page_of, small_store
from tests.fixtures.running_service import IDS, LSN, SETTINGS, TABLE, Running, frames, page_request
from tools.postgres_binaries import WHEEL_MAJOR, Installation

PSQL = Installation.find(WHEEL_MAJOR).binaries / "psql"


# psql ---------------------------------------------------------------------------------------------


def psql(running: Running, *statements: str) -> "subprocess.CompletedProcess[str]":
    host, port = running.address
    command = [str(PSQL), "-X", "-h", host, "-p", str(port), "-U", "me", "-d", "any", "-At"]
    for statement in statements:
        command += ["-c", statement]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_psql_shows(running: Running) -> None:
    shown = psql(running, "show status", "show relations", "show files", "show slru 0/900").stdout
    lines = shown.splitlines()
    assert f"tenant|{IDS.tenant}" in lines
    assert "ready_lsn|0/1000" in lines and "remote_lsn|" in lines
    assert "counter records_skipped|7" in lines
    assert "1663|5|16384|main|100" in lines and "1663|5|16384|vm|3" in lines
    assert "global/pg_control" in lines
    assert "xact|0000|2" in lines and "commit_ts|001F|1" in lines


def test_psql_gets_a_page(running: Running) -> None:
    done = psql(running, "GET_PAGE 1663 5 16384 main 42 0/900;")
    assert done.stdout.strip() == "\\x" + page_of(TABLE, 42, LSN).hex()
    done = psql(running, "show file global/pg_control 0/900")
    assert done.stdout.strip() == "\\x" + b"\0control\xff".hex()


def test_psql_asks_for_times(running: Running) -> None:
    done = psql(
        running,
        "LSN at '2000-01-01 00:00:05.5+00';",
        "lsn at 2000-01-01T00:01Z",
        "lsn at 'now'",
        "time at 0/910;",
    )
    assert done.stdout.splitlines() == [
        "0/5C0|2000-01-01 00:00:05+00|t",
        "0/1000|2000-01-01 00:00:16+00|f",
        "0/1000|2000-01-01 00:00:16+00|f",
        "2000-01-01 00:00:09+00",
    ]


def test_psql_statements_that_do_nothing(running: Running) -> None:
    done = psql(running, "set search_path = x", "", ";")
    assert (done.returncode, done.stdout, done.stderr) == (0, "SET\n", "")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("select 1", "show relations [LSN]"),
        ("lsn at", "lsn at 'TIMESTAMP'"),
        ("lsn at 'noon'", "expected a time such as 2026"),
        ("lsn at '1990-01-01'", "the oldest one is 0/100"),
        ("time at", "time at LSN"),
        ("time at 0/101", "no commit at or before 0/101 is known"),
        ("show", "get_page SPC DB REL FORK BLOCK LSN"),
        ("show status 0/1", "unknown statement"),
        ("get_page 1663 5 16384 main 0", "unknown statement"),
        ("get_page 1663 5 16384 main 100 0/900", "block 100 is past the end, 100 blocks"),
        ("get_page 1663 5 99 main 0 0/900", "no relation (1663, 5, 99, 0)"),
        ("get_page 1663 5 16384 0 0 0/900", "expected one of main, fsm, vm, init"),
        ("get_page 1663 5 16384 main 4294967296 0/900", "expected a number below 2^32"),
        ("get_page 1663 5 16384 main 0 900", "expected two hexadecimal numbers"),
        ("get_page 1663 5 16384 main 0 0/50", "0/50 is below the horizon 0/100"),
        ("get_page 1663 5 16384 main 0 0/0", "request_lsn is 0/0"),
        ("get_page 1663 5 16384 main 0 0/2000", "0/2000 was not ready within 0.5 s: ready is 0/10"),
        ("show relations 0/2000", "ready is 0/1000"),
        ("show file no/such", "no file 'no/such' at 0/1000"),
        ("pagestream_v2 a b", "use pagestream_v3"),
        ("pagestream_v3 a b", "this server has tenant 0123456789abcdef"),
    ],
)
def test_psql_errors(running: Running, statement: str, said: str) -> None:
    done = psql(running, statement)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.startswith("ERROR:")


def test_psql_can_cancel_a_wait() -> None:
    running = Running(small_store(), replace(SETTINGS, wait_lsn_timeout=60.0))
    try:
        host, port = running.address
        command = ["psql", "-X", "-h", host, "-p", str(port), "-U", "me", "-d", "any", "-c"]
        command.append("get_page 1663 5 16384 main 0 0/2000")
        asking = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        running.wait_until(lambda: bool(running.service._admitted))
        time.sleep(0.3)
        asking.send_signal(signal.SIGINT)
        _, said = asking.communicate(timeout=20)
        assert "canceled" in said
    finally:
        running.service.stop()


# Page streams -------------------------------------------------------------------------------------


def test_the_client_s_methods(running: Running) -> None:
    store = running.store
    with PageClient(running.name) as client:
        pages = client.get_pages(*TABLE, 0, 100, LSN)
        assert pages == b"".join(page_of(TABLE, block, LSN) for block in range(100))
        assert client.get_page(*TABLE, 99, LSN) == page_of(TABLE, 99, LSN)
        assert client.get_pages(*TABLE, 0, 0, LSN) == b""
        assert client.nblocks(1663, 5, 16384, 2, LSN) == 3
        assert client.exists(*TABLE, LSN) and not client.exists(1, 2, 3, 0, LSN)
        assert client.db_size(5, LSN) == 103 * 8192
        assert client.slru_segment(0, 0, LSN) == store.slru[0, 0]
        assert client.slru_segments() == [(0, 0), (3, 31)]
        assert client.relations(LSN) == [(*TABLE, 100), (1663, 5, 16384, 2, 3)]
        assert client.files() == ["PG_VERSION", "global/pg_control"]
        assert client.file("PG_VERSION", LSN) == b"18\n"
        assert client.file("nothing", LSN) is None
        status = client.status()
        assert status["remote_lsn"] is None and status["layer_count"] == 3
        assert status["counters"] == {"records_skipped": 7}


def test_the_client_s_errors(running: Running) -> None:
    with PageClient(running.name) as client:
        with pytest.raises(PageServerError, match="past the end"):
            client.get_pages(*TABLE, 50, 100, LSN)
        assert client.get_page(*TABLE, 0, LSN) == page_of(TABLE, 0, LSN)
        with pytest.raises(PageServerError, match="no relation"):
            client.nblocks(1, 2, 3, 0, LSN)
        with pytest.raises(PageServerError, match="no segment 0009 of SLRU 1"):
            client.slru_segment(1, 9, LSN)
        with pytest.raises(PageServerError, match="kind 4: expected 0 to 3"):
            client.slru_segment(4, 9, LSN)
    with (
        PageClient(running.name, "0" * 32, "0" * 32) as client,
        pytest.raises(PageServerError, match="this server has tenant"),
    ):
        client.get_page(*TABLE, 0, LSN)
    running.service.stop()
    with pytest.raises(ConnectError):
        PageClient(running.name).status()


@pytest.mark.parametrize(
    ("error", "sqlstate"),
    [
        (CorruptionError("frame checksum", "x.bundle offset 28", 1, 2), pgwire.DATA_CORRUPTED),
        (OSError(5, "Input/output error"), pgwire.IO_ERROR),
    ],
)
def test_damage_is_said_and_ends_nothing(running: Running, error: Exception, sqlstate: str) -> None:
    """A damaged size is the answer to who asks for it, not the end of the page stream."""
    size = ps.request(ps.NBLOCKS, 1, LSN, LSN, ps.relation_body(*TABLE))
    running.store.damaged = error
    with running.stream() as client:
        client.send(frames(size))
        assert client.value(size) == (b"", str(error))
        running.store.damaged = None
        client.send(frames(size))
        assert client.value(size) == (ps.nblocks_value(100), "")
    running.store.damaged = error
    with PageClient(running.name) as client:
        with pytest.raises(PageServerError) as raised:
            client.relations(LSN)
        assert (str(raised.value), raised.value.sqlstate) == (str(error), sqlstate)
        assert client.slru_segments() == [(0, 0), (3, 31)]


def test_replies_come_in_order_and_in_batches(running: Running) -> None:
    running.store.unreadable = {3, 120}
    requests = [page_request(i % 100 if i != 3 else 3) for i in range(500)]
    requests[200] = ps.request(ps.NBLOCKS, 1, LSN, LSN, ps.relation_body(*TABLE))
    with running.stream() as client:
        client.send(frames(*requests))
        for i, request in enumerate(requests):
            value, error = client.value(request)
            if i == 200:
                assert value == ps.nblocks_value(100)
            elif i % 100 == 3:
                assert error == "block 3 cannot be read"
            else:
                assert value == page_of(TABLE, i % 100, LSN)
    sizes = running.store.batch_sizes
    assert sum(sizes) == 499
    assert max(sizes) == SETTINGS.batch_pages_max


def test_requests_cut_anywhere(running: Running) -> None:
    requests = [page_request(block) for block in range(4)]
    data = frames(*requests)
    with running.stream() as client:
        for cut in range(1, len(data), 17):
            client.send(data[:cut])
            time.sleep(0.001)
            client.send(data[cut:])
            for block, request in enumerate(requests):
                assert client.value(request) == (page_of(TABLE, block, LSN), "")


def test_waiting_for_an_lsn(running: Running) -> None:
    early = page_request(0)
    late = page_request(1, ps.LATEST_LSN, 0x1800)
    with running.stream() as client:
        client.send(frames(early, late))
        assert client.value(early)[0] == page_of(TABLE, 0, LSN)
        time.sleep(0.1)  # the first had not to wait, the other now does
        running.store.advance(0x2000)
        assert client.value(late)[0] == page_of(TABLE, 1, 0x1800)
        latest = page_request(2, ps.LATEST_LSN, 0x1800)
        client.send(frames(latest))
        assert client.value(latest)[0] == page_of(TABLE, 2, 0x2000)


def test_what_can_never_be_ready_is_not_waited_for() -> None:
    """Nor any longer, once that is known."""
    running = Running(small_store(), replace(SETTINGS, wait_lsn_timeout=60.0))
    last: list[int | None] = [None]
    running.service.last_lsn = lambda: last[0]
    above, at = page_request(0, ps.LATEST_LSN, 0x1008), page_request(1, 0x1000, 0x1000)
    begin = time.monotonic()
    try:
        with running.stream() as client:
            client.send(frames(above, at))
            time.sleep(0.1)
            last[0] = 0x1000
            said = client.value(above)[1]
            assert said.startswith("0/1008 is above 0/1000, where what is here ends; no WAL comes")
            assert "state: disk full (the disk is full)" in said
            assert client.value(at)[0] == page_of(TABLE, 1, 0x1000)
        with PageClient(running.name) as asking, pytest.raises(PageServerError, match="above 0/10"):
            asking.relations(0x1008)
        assert time.monotonic() - begin < 10
    finally:
        running.service.stop()


def test_what_waits_together_gives_up_together(running: Running) -> None:
    requests = [page_request(block, ps.LATEST_LSN, 0x5000 + block) for block in range(20)]
    begin = time.monotonic()
    with running.stream() as client:
        client.send(frames(*requests, page_request(0)))
        for block, request in enumerate(requests):
            _, error = client.value(request)
            assert lsn_text.show(0x5000 + block) in error and "ready is 0/1000" in error
        assert client.value(page_request(0))[0] == page_of(TABLE, 0, LSN)
    assert time.monotonic() - begin < 5 * SETTINGS.wait_lsn_timeout


def test_before_the_base_backup_is_complete(running: Running) -> None:
    running.store.horizon_lsn = 0x4000
    with running.stream() as client:
        request = page_request(0, ps.LATEST_LSN, 0)
        client.send(frames(request))
        assert client.value(request)[1] == "base backup not complete: ready at 0/4000, now 0/1000"
        running.store.horizon_lsn = 0
        client.send(frames(request))
        assert client.value(request)[1] == "base backup not complete"


def test_before_the_base_backup_begins(running: Running) -> None:
    running.store.ids = None
    running.store.horizon_lsn = running.store.ready_lsn = 0
    assert "base backup not complete" in psql(running, "show relations").stderr
    assert "base backup not complete" in psql(running, "pagestream_v3 a b").stderr
    assert psql(running, "show status").stdout.startswith("tenant|\ntimeline|\n")


def test_a_page_stream_ends_and_statements_go_on(running: Running) -> None:
    with running.stream() as client:
        client.send(frames(page_request(0)), pgwire.copy_done())
        assert client.value(page_request(0))[1] == ""
        assert [tag for tag, _ in client.until_ready()] == [b"c", b"C"]
        client.send(pgwire.query("show files"))
        assert len(client.until_ready()) == 4
        ids = f"{IDS.tenant} {IDS.timeline}"
        client.send(pgwire.query(f"pagestream_v3 {ids}"))
        assert client.message()[0] == b"W"
        client.send(pgwire.message(b"f", b"enough\0"))
        assert client.error()["M"] == "the client gave up: enough"
        assert client.message()[0] == b"Z"


def test_an_engine_that_fails_ends_the_stream_but_not_the_connection(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(running.store, "get_pages", fail)
    with running.stream() as client:
        client.send(frames(page_request(0), page_request(1)), pgwire.copy_done())
        error = client.error()
        assert error["C"] == pgwire.INTERNAL_ERROR and "a defect" in error["M"]
        assert client.message()[0] == b"Z"
        client.send(pgwire.query("show files"))
        assert client.until_ready()


def test_a_request_error_of_a_statement(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> list[str]:
        raise RequestError("not today")

    monkeypatch.setattr(running.store, "files", refuse)
    assert "not today" in psql(running, "show files").stderr
