"""Points and leases of a real server: read over a restart and while the horizon advances."""

import time
from collections.abc import Callable

import pytest

from formats import lsn as lsn_text
from server.client import PageClient, PageServerError
from tests.fixtures.page_servers import PageServerFactory
from tests.fixtures.postgres_servers import PostgresFactory
from tools.page_server import PageServer

SECONDS = 30.0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def horizon(server: PageServer) -> int:
    with server.client() as client:
        return lsn_text.parse(str(client.status()["horizon_lsn"]))


def test_a_lease_keeps_its_lsn_until_it_ends(
    postgres: PostgresFactory, page_server: PageServerFactory
) -> None:
    primary = postgres(18)
    primary.sql("CREATE TABLE t AS SELECT 1 AS number")
    path = primary.sql("SELECT pg_relation_filepath('t')")[0][0]
    db, rel = (int(part) for part in path.split("/")[1:])
    options = ("retention_seconds=0", "retention_wal_bytes=0", "flush_seconds_max=0.2")
    server = page_server(primary, *(word for option in options for word in ("--set", option)))

    def change() -> int:
        """A new version of the table's page; the LSN behind it, ready."""
        primary.sql("UPDATE t SET number = number + 1")
        end = lsn_text.parse(primary.sql("SELECT pg_current_wal_flush_lsn()")[0][0])
        server.wait_until_ready(end)
        return end

    def page(client: PageClient, lsn: int) -> bytes:
        return client.get_page(1663, db, rel, 0, 0, lsn)

    first, second = change(), change()
    with server.client() as client:
        kept = page(client, second)
        assert page(client, first) != kept
        client.query(f"lease create {lsn_text.show(second)} for 1h name mine")
    before = primary.sql("SELECT now()::text")[0][0]
    newest = change()
    with server.client() as client:
        ((_, lsn, _, _),) = client.query(f"point create then at '{before}'")
        assert lsn is not None and second <= lsn_text.parse(lsn.decode()) < newest
        client.query("point drop then")
    wait_until(lambda: horizon(server) >= newest)
    server.stop()
    server.start()
    server.wait_until_ready(newest)
    with server.client() as client:
        assert page(client, second) == kept
        assert client.nblocks(1663, db, rel, 0, second) == 1
        assert lsn_text.show(second) == client.status()["retained_lsn"]
        with pytest.raises(PageServerError, match=r"below the horizon .*, the oldest LSN"):
            page(client, first)
        client.query("lease renew mine for 1s")
        wait_until(lambda: client.status()["lease_count"] == 0)
        with pytest.raises(PageServerError, match="below the horizon"):
            page(client, second)
