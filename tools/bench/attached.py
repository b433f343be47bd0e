"""A primary and a page server attached to it, for the benchmarks that need the whole."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from formats import lsn as lsn_text
from formats import pagestream, pgwire
from tools.bench.bench import Bench
from tools.page_server import PageServer
from tools.postgres import Server

SETTINGS = {"max_wal_size": "64GB", "checkpoint_timeout": "1h", "shared_buffers": "512MB"}
LATEST_LSN = pagestream.LATEST_LSN


@contextmanager
def primary_of(
    bench: Bench,
    scale: int,
    settings: Mapping[str, str] | None = None,
    fill_percent: int = 100,
) -> Iterator[Server]:
    """A primary with pgbench's tables, stopped at the end."""
    primary = bench.workspace.cluster(settings={**SETTINGS, **(settings or {})}).start()
    try:
        primary.pgbench("-i", "-q", "-s", str(scale), "-F", str(fill_percent))
        yield primary
    finally:
        primary.stop("immediate")


@contextmanager
def attached(bench: Bench, primary: Server, *options: str) -> Iterator[PageServer]:
    """A page server that has caught up with the primary, killed at the end."""
    server = PageServer(bench.workspace.new_path("pages"), primary.conninfo(), *options)
    server.start()
    try:
        server.wait_until_ready(insert_lsn(primary))
        yield server
    finally:
        server.kill()


def insert_lsn(primary: Server) -> int:
    ((text,),) = primary.sql("select pg_current_wal_insert_lsn()::text")
    return lsn_text.parse(text)


def catch_up(primary: Server, server: PageServer) -> int:
    """Wait until all of the primary's WAL can be read; the LSN."""
    primary.sql("select pg_logical_emit_message(false, 'bench', '', true)")
    target = insert_lsn(primary)
    server.wait_until_ready(target - 64)
    return target - 64


def relation_of(primary: Server, table: str) -> tuple[int, int, int]:
    """Tablespace, database and relfilenumber of a table in the database postgres."""
    ((path,),) = primary.sql(f"select pg_relation_filepath('{table}')")
    _, db, rel = path.split("/")
    return 1663, int(db), int(rel)


def page_query(server: PageServer) -> str:
    """The statement that begins a page stream."""
    with server.client() as client:
        status = client.status()
    return f"pagestream_v3 {status['tenant']} {status['timeline']}"


def frame(relation: tuple[int, int, int], block: int, lsn: int, since: int) -> bytes:
    """A GetPage request in its CopyData frame."""
    body = pagestream.page_body(*relation, 0, block)
    return pgwire.copy_data(pagestream.request(pagestream.GET_PAGE, 1, lsn, since, body))


def write_frames(bench: Bench, frames: list[bytes]) -> Path:
    path = bench.workspace.new_path("frames")
    path.write_bytes(b"".join(frames))
    return path


def address_of(server: PageServer) -> tuple[int, int]:
    """Process id and port."""
    assert server.process is not None, "a server that is attached was started"
    return server.process.pid, int(server.address.rpartition(":")[2])
