"""What the commands of `pageserver` that ask a server have in common: options, errors, tables."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from formats import pgwire
from server.client import ConnectError, PageServerError
from server.exit_code import ExitCode

DEFAULT_ADDRESS = "127.0.0.1:64000"
EXIT_STATUS = (
    "Exit status: 0 all is well; 1 something is wrong, for example a page that cannot be read; "
    "2 wrong usage; 3 no connection to the server or the source; 4 the data directory is in use "
    "or refused."
)

Connect = Annotated[
    str, typer.Option("--connect", metavar="HOST:PORT", help="The page server to ask.")
]


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """What a person wrote wrongly ends with 2."""
    try:
        yield
    except ValueError as error:
        fail(ExitCode.USAGE, str(error))


@contextlib.contextmanager
def server_errors() -> Iterator[None]:
    try:
        yield
    except ConnectError as error:
        fail(ExitCode.CANNOT_CONNECT, str(error))
    except PageServerError as error:
        is_usage = error.sqlstate in (pgwire.INVALID_PARAMETER, pgwire.SYNTAX_ERROR)
        fail(ExitCode.USAGE if is_usage else ExitCode.WRONG, str(error))
    except ValueError as error:
        fail(ExitCode.USAGE, str(error))


def fail(code: ExitCode, text: str) -> NoReturn:
    print(f"pageserver: {text}", file=sys.stderr)
    raise typer.Exit(code)


def print_rows(
    columns: Sequence[str], rows: Sequence[Mapping[str, object]], numbers: Sequence[str] = ()
) -> None:
    """A table with a heading; `numbers` are the columns that end at the same place."""
    table = Table(box=None)
    for column in columns:
        table.add_column(column, no_wrap=True, justify="right" if column in numbers else "left")
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    Console().print(table)


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2))
