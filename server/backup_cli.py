"""`pageserver restore` and `pageserver scrub`: a backup becomes a directory, or is read back."""

import contextlib
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from formats import chunk_filter
from formats import lsn as lsn_text
from formats.errors import CorruptionError
from server.command_line import EXIT_STATUS, fail, print_json, usage_errors
from server.exit_code import ExitCode

if TYPE_CHECKING:  # boto3 takes a second to import: only who needs it waits
    from server.backup.restore import Restored
    from server.backup.s3_client import Traffic
    from server.backup.scrub import ScrubReport

From = Annotated[str, typer.Option("--from", metavar="URL", help="The backup: s3://bucket/prefix.")]
Endpoint = Annotated[
    str | None,
    typer.Option(
        "--s3-endpoint",
        metavar="URL",
        help="The store, if it is not Amazon's: http://HOST:PORT or https://HOST:PORT.",
    ),
]
DataDir = Annotated[
    Path, typer.Option("--data-dir", metavar="D", help="The directory to make; empty, or new.")
]
Lsn = Annotated[
    str | None,
    typer.Option(metavar="X/Y", help="As of this LSN: the directory ends there, read-only."),
]
Chunks = Annotated[
    str | None, typer.Option(metavar="SPEC", help="Only these chunks, as serve --chunks.")
]
Lazy = Annotated[
    bool,
    typer.Option("--lazy", help="No pages now: they come from the bucket when they are asked for."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]
NEEDS = "Credentials come from where boto3 looks: the environment, a profile, the machine's role."


@contextlib.contextmanager
def backup_errors() -> Iterator[None]:
    """What can go wrong, as an exit status."""
    from engine.storage import DirectoryInUseError
    from server.backup.object_store import StoreError
    from server.backup.restore_plan import RestoreRefusedError

    logging.basicConfig(format="pageserver: %(message)s")
    logging.getLogger("pageserver").setLevel(logging.INFO)  # boto3 has much to say that helps none
    try:
        yield
    except (RestoreRefusedError, DirectoryInUseError) as error:
        fail(ExitCode.REFUSED, str(error))
    except StoreError as error:
        fail(ExitCode.CANNOT_CONNECT, str(error))
    except CorruptionError as error:
        fail(ExitCode.WRONG, f'{error}. See docs/restore.md, "When something is damaged"')
    except OSError as error:
        fail(ExitCode.WRONG, str(error))


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    for command, short_help in (
        (restore, "Make a data directory of a backup."),
        (scrub, "Read a backup back and check all of it."),
    ):
        app.command(epilog=EXIT_STATUS, short_help=short_help)(command)


def restore(
    source: From,
    data_dir: DataDir,
    lsn: Lsn = None,
    chunks: Chunks = None,
    lazy: Lazy = False,
    s3_endpoint: Endpoint = None,
    as_json: AsJson = False,
) -> None:
    """Make a data directory of a backup; `pageserver serve` goes on from it.

    Every byte is checked while it comes. Cut off, by kill -9 or the power, it goes on where it was
    when it is called again with the same options; nothing can be served before all of it is there.

    With --lsn the directory answers as of that LSN, of points and leases below it, and of anything
    between the horizon and it. It never takes WAL and never writes to the bucket. `pageserver lsn`
    says which LSN belongs to a time. The newest LSN that the bucket has is no different from none,
    but for --lazy.

    With --chunks it holds those chunks alone, for its life, and what is kept everywhere; it may
    take WAL, and never writes to that bucket.

    With --lazy it takes about a second, whatever the size. Serve it with --s3 and the same URL.
    With --lsn it is then only read there, beside the server that writes to the bucket; without, the
    server of this directory takes the bucket over from whoever wrote there. With both, --chunks may
    be said as well.
    """
    with usage_errors():
        position = None if lsn is None else lsn_text.parse(lsn)
        if chunks is not None:
            chunk_filter.parse(chunks)
    from engine.storage import Storage
    from server.backup import restore as restoring
    from server.backup.s3_store import S3Store
    from server.backup.transfer_progress import TransferProgress

    with usage_errors(), backup_errors():
        store = S3Store(source, s3_endpoint, parallelism=2 * restoring.PARALLELISM)
        with TransferProgress() as progress:
            done = restoring.restore(
                store, data_dir, Storage(), store.location.url,
                lsn=position, lazy=lazy, chunks=chunks, progress=progress,
            )  # fmt: skip
    if done is None:
        print(f"{data_dir} was restored already: an earlier run had done all of it")
        return
    values = _restored(done, store.location.url, data_dir, store.traffic())
    if as_json:
        print_json(values)
    else:
        _print_values(values)


def _restored(done: "Restored", url: str, data_dir: Path, traffic: "Traffic") -> dict[str, object]:
    manifest, state = done.plan.manifest, done.state
    below = sorted(
        {point.lsn for point in manifest.points.values()}
        | {lease.lsn for lease in manifest.leases.values()}
    )
    return {
        "from": url,
        "data_dir": str(data_dir),
        "serial": state.serial,
        "written": _time(state.seconds),
        "epoch": state.epoch,
        "horizon_lsn": lsn_text.show(manifest.horizon_lsn),
        "end_lsn": lsn_text.show(done.plan.end_lsn),
        "retained_lsns": [lsn_text.show(lsn) for lsn in below if lsn < manifest.horizon_lsn],
        "chunks": manifest.identity.chunks if manifest.identity else None,
        "goes_on": manifest.ends_at_lsn is None,
        "files": done.files,
        "files_kept": done.files_kept,
        "bytes": done.bytes,
        "seconds": round(done.seconds, 2),
        "requests": traffic.requests.total(),
        "bytes_received": traffic.bytes_received,
    }


def scrub(
    source: From,
    bytes_per_second: Annotated[
        int, typer.Option(metavar="N", min=0, help="Read no faster than this; 0: as fast as may.")
    ] = 0,
    s3_endpoint: Endpoint = None,
    as_json: AsJson = False,
) -> None:
    """Read a backup back and check all of it: every checksum, and the manifest against the objects.

    Nothing of the backup is changed, and its server may be running. When each object was last found
    whole stays beside it in the bucket; what was not checked for the longest time comes first, so
    one that is interrupted has done something. Ends with 1 if anything is wrong.
    """
    from server.backup import scrub as scrubbing
    from server.backup.s3_store import S3Store
    from server.backup.transfer_progress import TransferProgress

    with usage_errors(), backup_errors():
        store = S3Store(source, s3_endpoint, bytes_per_second=bytes_per_second)
        with TransferProgress() as progress:
            report = scrubbing.scrub(store, progress)
    values = _scrubbed(report, store.location.url, store.traffic())
    problems = [
        {"object": p.object, "what": p.what, "expected": p.expected, "found": p.found}
        for p in report.problems
    ]
    if as_json:
        verified = {name: _time(report.verified[name]) for name in sorted(report.verified)}
        print_json({**values, "verified": verified, "problems": problems})
    else:
        _print_values(values)
        for problem in problems:
            print("wrong: {object}: {what}: expected {expected}, found {found}".format(**problem))
    if problems:
        raise typer.Exit(ExitCode.WRONG)


def _scrubbed(report: "ScrubReport", url: str, traffic: "Traffic") -> dict[str, object]:
    times = sorted(report.verified.values())
    return {
        "from": url,
        "serial": report.state.serial,
        "remote_lsn": lsn_text.show(report.state.remote_lsn),
        "objects": report.objects,
        "bytes": report.bytes,
        "seconds": round(report.seconds, 2),
        "requests": traffic.requests.total(),
        "oldest_verification": _time(times[0]) if times else None,
        "newest_verification": _time(times[-1]) if times else None,
        "never_verified": len(report.never_verified),
        "dead_objects": len(report.dead),
        "dead_bytes": sum(info.size for info in report.dead),
        "orphans": len(report.orphans),
        "orphan_bytes": sum(info.size for info in report.orphans),
        "oldest_orphan": _time(min(info.modified for info in report.orphans))
        if report.orphans
        else None,
        "wrong": len(report.problems),
    }


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}+00"


def _print_values(values: dict[str, object]) -> None:
    table = Table(show_header=False, box=None)
    for name, value in values.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        table.add_row(name, "-" if text in (None, "") else str(text))
    Console().print(table)
