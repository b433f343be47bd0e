"""The commands `pageserver lsn` and `pageserver time`."""

import sys
from typing import Annotated

import typer

from formats import lsn as lsn_text
from server import timestamps
from server.client import PageClient
from server.command_line import (
    DEFAULT_ADDRESS,
    Connect,
    print_json,
    server_errors,
    usage_errors,
)


def lsn(
    at: Annotated[
        str,
        typer.Option(
            "--at",
            metavar="TIMESTAMP",
            help="ISO 8601 or as PostgreSQL prints it; or now. Without a zone it is in the local "
            "time of this command (TZ), not of the server.",
        ),
    ],
    connect: Connect = DEFAULT_ADDRESS,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Find the LSN whose state is that as of a time, from the commit records in WAL.

    \b
    pageserver lsn --at '2026-11-22 14:03:07.123456+00'
    pageserver lsn --at 2026-11-22T15:03+01:00
    pageserver lsn --at now

    It is where PostgreSQL would stop with recovery_target_time: before the first commit or abort
    that is later than TIMESTAMP. Ends of transactions are known to 10 ms: commits of the last 10 ms
    up to TIMESTAMP may be left out, and never is one in it that is later. If the source's clock was
    set back, the record that comes first counts.

    After the last commit that is known it is the newest LSN that can be read, for a time in the
    future as well. WAL that has yet to come may then belong to that state, too, and a note on
    standard error says so (with --json, "is_final" is false). A time before that of the oldest LSN
    that can be read is an error.
    """
    with usage_errors():
        time = timestamps.parse(at)
    with server_errors(), PageClient(connect) as client:
        found, commit_time, is_final = client.lsn_at(time)
    if as_json:
        values = {"lsn": lsn_text.show(found), "commit_time": commit_time, "is_final": is_final}
        print_json(values)
        return
    print(lsn_text.show(found))
    note_newest(found, commit_time, is_final)


def note_newest(found: int, commit_time: str, is_final: bool) -> None:
    """Say so of an LSN at a time that later WAL may have commits up to."""
    if not is_final:
        print(
            f"pageserver: {lsn_text.show(found)} is the newest LSN: the last commit is of "
            f"{commit_time}, and later WAL may have others up to that time",
            file=sys.stderr,
        )


def time(
    at: Annotated[str, typer.Option("--at", metavar="LSN", help="X/Y; waited for if it is new.")],
    connect: Connect = DEFAULT_ADDRESS,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show the time of the newest commit or abort at or before an LSN, in UTC.

    \b
    pageserver time --at 0/1A2B3C8

    It is the source's clock as it stands in WAL, at most 10 ms early. Before the first commit since
    the base backup it is the time of the backup's checkpoint, in whole seconds.
    """
    with usage_errors():
        position = lsn_text.parse(at)
    with server_errors(), PageClient(connect) as client:
        commit_time = client.time_at(position)
    if as_json:
        values = {"lsn": lsn_text.show(position), "commit_time": commit_time}
        print_json(values)
    else:
        print(commit_time)
