"""The commands `pageserver lease` and `pageserver point`."""

from collections.abc import Sequence
from typing import Annotated

import typer

from formats import lsn as lsn_text
from formats import timestamp
from server import time_cli, timestamps
from server.client import PageClient
from server.command_line import (
    DEFAULT_ADDRESS,
    EXIT_STATUS,
    Connect,
    print_json,
    print_rows,
    server_errors,
    usage_errors,
)
from server.retention_commands import LEASE_COLUMNS, POINT_COLUMNS, parse_duration

_LEASE_HELP = """Keep an LSN readable for a time.

    A lease keeps every page as of exactly one LSN, whatever the horizon does meanwhile, until its
    time is over; who still needs it renews it. Leases outlive a restart of the server. Other LSNs
    below the horizon are not kept by it. For an LSN that is to stay for good see pageserver point.
    """
_POINT_HELP = """Keep an LSN readable until the point is dropped.

    A retention point keeps every page as of exactly one LSN, whatever the horizon does meanwhile.
    It has a name and no end, and what it keeps takes space until somebody drops it. Other LSNs
    below the horizon are not kept by it.
    """

lease = typer.Typer(no_args_is_help=True, help=_LEASE_HELP, epilog=EXIT_STATUS)
point = typer.Typer(no_args_is_help=True, help=_POINT_HELP, epilog=EXIT_STATUS)

UNKNOWN = "not known yet"
_NUMBERS = ("seconds_left", "held_bytes")

Json = Annotated[bool, typer.Option("--json", help="JSON, an object for each.")]
Lsn = Annotated[
    str | None,
    typer.Argument(
        metavar="LSN",
        help="X/Y; waited for if it is new, the newest that can be read if it is left out.",
    ),
]
For = Annotated[
    str,
    typer.Option(
        "--for",
        metavar="DURATION",
        help="How long from now: a whole number and s, m, h or d, as in 90s or 2h; at most 366d.",
    ),
]
LeaseName = Annotated[str, typer.Argument(metavar="NAME", help="As lease list shows it.")]
PointName = Annotated[
    str, typer.Argument(metavar="NAME", help="1 to 63 letters, digits, underscores, dots, hyphens.")
]


@lease.command("create", epilog=EXIT_STATUS, short_help="Keep an LSN for a time.")
def lease_create(
    duration: For,
    lsn: Lsn = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="1 to 63 letters, digits, underscores, dots, hyphens; made up if left out.",
        ),
    ] = None,
    connect: Connect = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Keep an LSN readable for a time, and print the lease.

    \b
    pageserver lease create 0/1A2B3C8 --for 2h
    pageserver lease create --for 30m --name nightly

    Refused, with exit status 1: an LSN below the horizon that no other lease or point keeps, as
    parts of it may be deleted already; a name that is in use.
    """
    with usage_errors():
        parse_duration(duration)
        words = ["lease create", _lsn(lsn), "for", duration]
        words += [] if name is None else ["name", _word(name)]
    _leases(connect, words, as_json)


@lease.command("renew", epilog=EXIT_STATUS, short_help="Let a lease end later, or sooner.")
def lease_renew(
    name: LeaseName,
    duration: For,
    connect: Connect = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Let a lease end DURATION from now, be that later or sooner than before.

    A lease that is over cannot be renewed: what it kept may be deleted. Renew well before its end.
    """
    with usage_errors():
        parse_duration(duration)
        words = ["lease renew", _word(name), "for", duration]
    _leases(connect, words, as_json)


@lease.command("drop", epilog=EXIT_STATUS, short_help="End a lease now.")
def lease_drop(name: LeaseName, connect: Connect = DEFAULT_ADDRESS, as_json: Json = False) -> None:
    """End a lease now; its LSN can no longer be read if it is below the horizon."""
    with usage_errors():
        words = ["lease drop", _word(name)]
    _leases(connect, words, as_json)


@lease.command("list", epilog=EXIT_STATUS, short_help="Show all leases.")
def lease_list(connect: Connect = DEFAULT_ADDRESS, as_json: Json = False) -> None:
    """Show all leases, the oldest LSN first.

    \b
    name           what it is called
    lsn            the LSN that it keeps
    until          when it ends, in UTC
    seconds_left   how long that is from now
    held_bytes     what goes from the layers if it is dropped: 0 while another lease or a point
                   keeps the same LSN; not known yet before the first look at all layers
    """
    _leases(connect, ["lease list"], as_json)


@point.command("create", epilog=EXIT_STATUS, short_help="Keep an LSN.")
def point_create(
    name: PointName,
    lsn: Lsn = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="TIMESTAMP",
            help="In place of LSN: the one whose state is that as of a time, which is past, or "
            "now; see pageserver lsn.",
        ),
    ] = None,
    connect: Connect = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Keep an LSN readable until the point is dropped, and print the point.

    \b
    pageserver point create before-migration
    pageserver point create release-7 0/1A2B3C8
    pageserver point create monday --at '2026-11-23 00:00+00'

    Refused, with exit status 1: an LSN below the horizon that no other point or lease keeps, as
    parts of it may be deleted already; a name that is in use.
    """
    with usage_errors():
        if lsn is not None and at is not None:
            raise ValueError("LSN and --at exclude each other")
        words = ["point create", _word(name)]
        words += [_lsn(lsn)] if at is None else [f"at '{_time(at)}'"]
    with server_errors(), PageClient(connect) as client:  # before: later it may be final
        found = None if at is None else client.lsn_at(timestamps.parse(at))
    _points(connect, words, as_json)
    if found is not None:
        time_cli.note_newest(*found)


@point.command("drop", epilog=EXIT_STATUS, short_help="Keep an LSN no longer.")
def point_drop(name: PointName, connect: Connect = DEFAULT_ADDRESS, as_json: Json = False) -> None:
    """Drop a point; its LSN can no longer be read if it is below the horizon."""
    with usage_errors():
        words = ["point drop", _word(name)]
    _points(connect, words, as_json)


@point.command("list", epilog=EXIT_STATUS, short_help="Show all points.")
def point_list(connect: Connect = DEFAULT_ADDRESS, as_json: Json = False) -> None:
    """Show all points, the oldest LSN first.

    \b
    name         what it is called
    lsn          the LSN that it keeps
    commit_time  the time of the newest commit in what it keeps
    held_bytes   what goes from the layers if it is dropped: 0 while another point or a lease keeps
                 the same LSN; not known yet before the first look at all layers
    """
    _points(connect, ["point list"], as_json)


def _leases(connect: str, words: Sequence[str], as_json: bool) -> None:
    _show(LEASE_COLUMNS, _ask(connect, words, LEASE_COLUMNS), as_json)


def _points(connect: str, words: Sequence[str], as_json: bool) -> None:
    _show(POINT_COLUMNS, _ask(connect, words, POINT_COLUMNS), as_json)


def _ask(connect: str, words: Sequence[str], columns: Sequence[str]) -> list[dict[str, object]]:
    """The rows that answer a statement."""
    with server_errors(), PageClient(connect) as client:
        rows = client.query(" ".join(words))
    return [
        {name: _value(name, value) for name, value in zip(columns, row, strict=True)}
        for row in rows
    ]


def _value(name: str, value: bytes | None) -> object:
    if value is None:
        return None
    return int(value) if name in _NUMBERS else value.decode()


def _show(columns: Sequence[str], rows: Sequence[dict[str, object]], as_json: bool) -> None:
    if as_json:
        print_json(rows)
    else:
        shown = [
            {name: UNKNOWN if value is None else value for name, value in row.items()}
            for row in rows
        ]
        print_rows(columns, shown, _NUMBERS)


def _lsn(text: str | None) -> str:
    return "" if text is None else lsn_text.show(lsn_text.parse(text))


def _time(text: str) -> str:
    """In UTC, as the server may be elsewhere; `now` is by its clock."""
    return text if text.lower() == "now" else timestamp.show(timestamps.parse(text))


def _word(text: str) -> str:
    """A name as one word of a statement; whether it is a good one is the server's to say."""
    if len(text.split()) != 1 or ";" in text:
        raise ValueError(f"NAME {text!r}: expected one word")
    return text.strip()
