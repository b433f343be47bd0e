"""The command `pageserver`: serve, detach, status, page; the others by retention_cli.py and
time_cli.py.

Thin: options to values, errors to exit statuses. What `serve` does is in server/serve.py, which is
imported only then, so that asking a server takes no longer than it must.
"""

import contextlib
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from formats import chunk_filter
from formats import lsn as lsn_text
from formats.chunk import FORK_NAMES
from server import backup_cli, config, page_description, retention_cli, time_cli
from server.backup.location import Location, check_endpoint
from server.client import STATUS_KEYS, PageClient
from server.command_line import (
    DEFAULT_ADDRESS,
    EXIT_STATUS,
    Connect,
    fail,
    print_json,
    server_errors,
    usage_errors,
)
from server.config import Settings
from server.exit_code import ExitCode

_FORKS = {name: int(fork) for fork, name in FORK_NAMES.items()}
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_STATUS,
    help="A page server for PostgreSQL: every version of every page, at any LSN.",
)
app.add_typer(retention_cli.lease, name="lease")
app.add_typer(retention_cli.point, name="point")
app.command("lsn", epilog=EXIT_STATUS, short_help="Find the LSN whose state is that as of a time.")(
    time_cli.lsn
)
app.command("time", epilog=EXIT_STATUS, short_help="Show the time of the newest commit at an LSN.")(
    time_cli.time
)
backup_cli.add_to(app)

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="D", help="The directory that holds everything it keeps."),
]
WalSources = Annotated[
    list[str] | None,
    typer.Option(
        "--wal-source",
        metavar="CONNINFO",
        help="Where WAL comes from, as a libpq connection string: a primary, a standby or a WAL "
        "safekeeper. Given more than once, they are tried in that order.",
    ),
]
SlotName = Annotated[
    str | None,
    typer.Option(
        "--slot",
        metavar="NAME",
        help="The replication slot; pageserver_ and eight digits of its own unless given.",
    ),
]
BaseSource = Annotated[
    str | None,
    typer.Option(
        "--base-source",
        metavar="CONNINFO",
        help="Where the base backup comes from, if not from the WAL source: a safekeeper has none.",
    ),
]
Chunks = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Which chunks to hold, kept for the directory's life: all (the default), or any of "
        "slru:KIND[/SEGMENT], rel:SPC/DB/REL[/FORK[/SEGMENT]] and hash:I/N, separated by commas; "
        "fields may be *. "
        "Pages of other chunks are refused.",
    ),
]
Tenant = Annotated[
    str | None, typer.Option(metavar="ID", help="32 hex digits that clients call this cluster.")
]
Timeline = Annotated[
    str | None, typer.Option(metavar="ID", help="32 hex digits that clients call this timeline.")
]
Listen = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT",
        help="Where clients find it. There is no authentication yet: anyone who reaches this "
        "address can read every page.",
    ),
]
Backup = Annotated[
    str | None,
    typer.Option(
        "--s3",
        metavar="s3://BUCKET/PREFIX",
        help="Where to back up to, all the time. One prefix is one server's, and stays so: another "
        "directory that does not come from what is there is refused. Of a directory that was "
        "restored with --lsn and --lazy: where its layers are read.",
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option("--s3-endpoint", metavar="URL", help="Of the S3 service, if it is not Amazon's."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting; wins over the file."),
]
ShowSettings = Annotated[bool, typer.Option("--show-settings", help="List all settings and end.")]


@app.command(epilog=EXIT_STATUS, short_help="Take WAL in, hand out pages.")
def serve(
    data_dir: DataDir = None,
    wal_source: WalSources = None,
    base_source: BaseSource = None,
    chunks: Chunks = None,
    slot: SlotName = None,
    tenant: Tenant = None,
    timeline: Timeline = None,
    listen: Listen = DEFAULT_ADDRESS,
    s3: Backup = None,
    s3_endpoint: Endpoint = None,
    assignments: Assignments = None,
    show_settings: ShowSettings = False,
) -> None:
    """Take WAL in, keep every version of every page, hand out pages.

    On an empty directory it takes a base backup from the source first, over the replication
    protocol, while WAL already streams beside it through a physical replication slot. On any other
    it goes on where it was; without --wal-source it then serves what it has, read-only.

    With --s3 it keeps a bucket the same, from which another one goes on should this one be lost: on
    an empty directory it begins with what the bucket has, and fetches layers when they are read. A
    directory as of an LSN (restore --lsn --lazy) is only read there; nothing is written.

    Without --wal-source, a request for an LSN above what is there is refused at once.

    Settings stand in D/pageserver.toml, one "name = value" each; --set overrides one of them and
    --show-settings lists them all.

    SIGTERM makes it flush and end; a second one ends it at once. Killed in any other way, it loses
    nothing that it had reported to the source as flushed.
    """
    with usage_errors():
        settings = config.load(data_dir, assignments or [])
        if show_settings:
            _show_settings(settings)
            return
        if data_dir is None:
            raise ValueError("--data-dir is missing")
    with _no_garbage_collection():
        from server.serve import ServeOptions, run

        with usage_errors():
            if chunks is not None:
                chunk_filter.parse(chunks)
            options = ServeOptions(
                data_dir=data_dir,
                wal_sources=tuple(wal_source or ()),
                base_source=base_source,
                chunks=chunks,
                slot=slot,
                tenant=_hex_id("--tenant", tenant),
                timeline=_hex_id("--timeline", timeline),
                listen=config.parse_address(listen),
                s3=None if s3 is None else Location.parse(s3).url,
                s3_endpoint=None if s3_endpoint is None else check_endpoint(s3_endpoint),
            )
            if settings.durability == "s3" and s3 is None:
                raise ValueError("durability = s3: --s3 must say where")
        raise typer.Exit(run(options, settings))


@app.command(epilog=EXIT_STATUS, short_help="Drop the replication slot at the source.")
def detach(data_dir: DataDir = None, wal_source: WalSources = None, slot: SlotName = None) -> None:
    """Drop the replication slots, so that the source no longer keeps WAL for this server.

    For good: a server that is started again from this directory finds a gap in the WAL as soon as
    the source has removed what it lacks. The server must not be running.
    """
    with usage_errors():
        if data_dir is None or not wal_source:
            raise ValueError("--data-dir and --wal-source are needed")
    from server.serve import detach as drop

    raise typer.Exit(drop(data_dir, wal_source, slot))


@app.command(epilog=EXIT_STATUS, short_help="Show where a page server is.")
def status(
    connect: Connect = DEFAULT_ADDRESS,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, null where there is no value.")
    ] = False,
) -> None:
    """Show where a page server is: its LSNs, its source, what it stores.

    \b
    state          what it does; error says what is in its way
    received_lsn   end of the WAL taken from the source
    flushed_lsn    end of the WAL that the journal has on disk
    ready_lsn      the newest LSN that can be read
    durable_lsn    end of the WAL whose page versions are in layer files
    remote_lsn     what object storage alone restores to
    horizon_lsn    the oldest LSN that can be read, those of points and leases apart
    horizon_time   the time of the newest commit in it
    commit_time    the time of the newest commit in ready_lsn
    lag_bytes      how far ready_lsn is behind the source

    \b
    backup                idle, uploading, retrying, stopped and why, fenced: another took it over
    backup_lag_bytes      how far remote_lsn is behind ready_lsn
    backup_pending_bytes  layers and WAL that are yet to be sent
    epoch                 of the writer of the prefix, as long as this is it
    evicted_count         layer files that went, as S3 has them; remote_read_requests for such, and
                          remote_read_bytes; cache_bytes of their cache, in which reads found
                          cache_hit_count blocks, and cache_miss_count not

    \b
    compaction           what it does: idle, merging L0, making images, rewriting files,
                         collecting garbage, or stopped and why
    l0_count             bundles that wait to be merged; ingest is slowed from l0_slowed_count on,
                         nothing is flushed from l0_wait_count on
    debt_bytes           layers above images, below L0, as the last look at all layers found them,
                         and debt_version_count the versions in them
    image_wanted_count   stripes that wait for an image
    damaged_count        stripes that are damaged and not compacted; damaged is the first of them
    flush_bytes          written by flushes since the start
    compaction_bytes     written by merges, images and rewriting since the start
    write_amplification  the second for each byte of the first
    layers_read_mean     layers that a page read has looked into since the start, of those that
                         memory could not answer; _p99, _max

    \b
    horizon_held_by   what keeps the horizon from advancing: retention_seconds,
                      retention_wal_bytes, flush (what comes next is in no layer yet)
    retained_lsn      the oldest LSN below it that a point or a lease keeps
    point_count       points, and lease_count leases: see pageserver point list and lease list
    held_bytes        layers that only points and leases keep, below L0
    """
    with server_errors(), PageClient(connect) as client:
        values = client.status()
    if as_json:
        print_json({key: values.get(key) for key in (*STATUS_KEYS, "counters")})
        return
    _show_status(values)


def _show_status(values: dict[str, object]) -> None:
    counters = values.pop("counters")
    rows = list(values.items())
    if isinstance(counters, dict):
        rows += sorted(counters.items())
    table = Table(show_header=False, box=None)
    for name, value in rows:
        table.add_row(name, "-" if value is None else str(value))
    Console().print(table)


@app.command(epilog=EXIT_STATUS, short_help="Fetch one page as of an LSN.")
def page(
    relation: Annotated[
        str,
        typer.Argument(
            metavar="SPC/DB/REL", help="Tablespace, database and relfilenumber, as numbers."
        ),
    ],
    fork: Annotated[str, typer.Argument(metavar="FORK", help="main, fsm, vm or init.")],
    block: Annotated[int, typer.Argument(metavar="BLOCK", min=0, max=0xFFFFFFFE)],
    lsn: Annotated[str, typer.Option(metavar="X/Y", help="As of which LSN.")],
    connect: Connect = DEFAULT_ADDRESS,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the 8192 bytes there; - is standard output."),
    ] = None,
) -> None:
    """Fetch one page as of an LSN, and describe it or write it to a file.

    Where the numbers come from: pg_relation_filepath('t') is base/DB/REL in tablespace 1663,
    global/REL in tablespace 1664 with database 0.
    """
    with usage_errors():
        spc, db, rel = _relation(relation)
        if fork not in _FORKS:
            raise ValueError(f"FORK {fork!r}: expected one of {', '.join(_FORKS)}")
        position = lsn_text.parse(lsn)
    with server_errors(), PageClient(connect) as client:
        data = client.get_page(spc, db, rel, _FORKS[fork], block, position)
    if out is None:
        table = Table(show_header=False, box=None)
        for name, value in page_description.describe(data, block):
            table.add_row(name, value)
        Console().print(table)
    elif str(out) == "-":
        sys.stdout.buffer.write(data)
    else:
        try:
            out.write_bytes(data)
        except OSError as error:
            fail(ExitCode.WRONG, str(error))


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Until the server has started (server/serve.py): what is loaded until then stays, and to look
    for garbage in it takes a tenth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _relation(text: str) -> tuple[int, int, int]:
    parts = text.split("/")
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() and len(p) <= 10 for p in parts):
        raise ValueError(f"{text!r}: expected SPC/DB/REL, three numbers")
    spc, db, rel = (int(part) for part in parts)
    if max(spc, db, rel) >= 1 << 32:
        raise ValueError(f"{text!r}: a number beyond 32 bits")
    return spc, db, rel


def _hex_id(option: str, text: str | None) -> str | None:
    if text is None:
        return None
    lowered = text.lower()
    if len(text) != 32 or not set(lowered) <= set("0123456789abcdef"):
        raise ValueError(f"{option} {text}: expected 32 hex digits")
    return lowered


def _show_settings(settings: Settings) -> None:
    table = Table(box=None)
    for heading in ("name", "unit", "default", "value", ""):
        table.add_column(heading, no_wrap=heading != "")
    for setting in config.descriptions():
        value = getattr(settings, setting.name)
        table.add_row(setting.name, setting.unit, str(setting.default), str(value), setting.doc)
    Console().print(table)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
