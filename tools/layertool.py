"""The command `layertool`: look into the files of a page server.

    layertool dump FILE       a bundle: header, ranges, directory, entries; a manifest: its records;
                              a WAL segment, as of the journal: its records as pg_waldump has them
    layertool verify PATH…    a data directory, or single bundles and manifests: everything checked
    layertool draw DIR        the plane of keys and LSNs of a data directory, as SVG
    layertool reindex PATH    the LMDB index of a data directory made anew from the other files
    layertool stat PATH       a data directory: layers, debt and layers a read, chunk by chunk

A directory that a server has open is refused: its lock is taken for as long as the command runs.
`stat` takes none, and tells of such a directory what was true when it began.
"""

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine import directory_check
from engine.directory_check import Finding
from engine.index_rebuild import reindex as rebuild
from engine.storage import DirectoryInUseError, File, Storage
from formats import chunk_filter, wal_page
from formats.errors import CorruptionError
from formats.file_name import SUFFIX
from tools import layer_draw, layer_stat_tables, layer_svg, wal_dump
from tools.layer_dump import BundleDump, dump_manifest
from tools.layer_stat import read_directory

PIPE_WIDTH = 160  # columns of a table that no terminal shows


class ExitCode(IntEnum):
    OK = 0
    WRONG = 1
    USAGE = 2
    IN_USE = 4


_EXIT_STATUS = (
    "Exit status: 0 all is well; 1 something was found wrong; 2 wrong usage; 4 the directory is in "
    "use by a server."
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EXIT_STATUS,
    help="Look into the files of a page server; all but `stat` of one that is stopped.",
)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")]


class UsageError(Exception):
    """The command line asks for something that cannot be done."""


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Errors become one line on stderr and an exit status."""
    try:
        yield
    except UsageError as error:
        status, text = ExitCode.USAGE, str(error)
    except DirectoryInUseError as error:
        status = ExitCode.IN_USE
        text = f"{error} (SIGTERM makes a page server flush and end)"
    except (CorruptionError, OSError) as error:
        status, text = ExitCode.WRONG, str(error)
    else:
        return
    print(f"layertool: {text}", file=sys.stderr)
    raise typer.Exit(status)


def _is_data_directory(path: Path) -> bool:
    names = (directory_check.MANIFEST_NAME, directory_check.LAYERS_NAME)
    return path.is_dir() and any((path / name).exists() for name in names)


@contextmanager
def _locked(storage: Storage, *paths: Path) -> Iterator[None]:
    """Keep servers out of the data directories that `paths` are, or are parts of."""
    held: dict[Path, File] = {}
    try:
        for path in paths:
            for root in (path.resolve(), *path.resolve().parents[:2]):
                lock = root / directory_check.LOCK_NAME
                if _is_data_directory(root) and lock.exists() and root not in held:
                    held[root] = storage.lock(lock)
        yield
    finally:
        for file in held.values():
            storage.close(file)


@app.command(epilog=_EXIT_STATUS, short_help="Show what is in a bundle, manifest or WAL segment.")
def dump(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A bundle, a manifest or a WAL segment.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show what is in a bundle, in a manifest, or in a segment of the journal.

    Of a bundle: header, directory, frames, and each version of a page, WAL records described as
    pg_waldump describes them. Of a WAL segment, a server's as well: the records that start in it.
    Times are in the local time zone.
    """
    with _exit_codes():
        if not file.is_file():
            raise UsageError(f"not a file: {file}")
        with _locked(Storage(), file):
            if file.name.endswith(SUFFIX):
                _dump_bundle(file, as_json)
            elif file.name == directory_check.MANIFEST_NAME:
                _dump_records(dump_manifest(file), as_json)
            elif wal_page.is_file_name(file.name):
                _dump_wal(file, as_json)
            else:
                raise UsageError(f"no bundle (*{SUFFIX}), manifest or WAL segment: {file}")


def _dump_bundle(file: Path, as_json: bool) -> None:
    try:
        bundle = BundleDump(file)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if as_json:
        parts: dict[str, Any] = {"header": bundle.header()}
        for name in ("directory", "frames", "entries"):
            parts[name] = list(getattr(bundle, name)())
        print(json.dumps(parts, indent=2))
        return
    console = _console()
    header = Table(box=None, show_header=False)
    for name, value in bundle.header().items():
        header.add_row(name, str(value))
    console.print(header)
    for name in ("directory", "frames"):
        console.print()
        _print_table(console, name, getattr(bundle, name)())
    print("\nentries")
    for line in bundle.entry_lines():
        print(line)


def _dump_wal(file: Path, as_json: bool) -> None:
    rows = wal_dump.dump_segment(file)
    if as_json:
        print(json.dumps(list(rows), indent=2))
        return
    for row in rows:
        print(wal_dump.record_line(row))


def _dump_records(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        fields = ", ".join(f"{name} = {value}" for name, value in row["fields"].items())
        row["fields"] = fields
    _print_table(_console(), "records", rows)


@app.command(epilog=_EXIT_STATUS, short_help="Check everything in directories and files.")
def verify(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH…", help="Data directories, bundles, manifests."),
    ],
    as_json: AsJson = False,
) -> None:
    """Check every checksum, order, range and table of data directories, bundles and manifests.

    Of a data directory also: the files against the manifest, the index against one rebuilt from
    them, and the journal. Says what is wrong, and where.
    """
    findings: list[Finding] = []
    with _exit_codes(), ExitStack() as stack:
        storage = Storage()
        for path in paths:
            if not path.exists():
                raise UsageError(f"no such file or directory: {path}")
        stack.enter_context(_locked(storage, *paths))
        for path in paths:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            findings += _verify(storage, path, work)
    faults = sum(finding.is_fault for finding in findings)
    if as_json:
        print(json.dumps({"faults": faults, "findings": [vars(f) for f in findings]}, indent=2))
    else:
        for finding in findings:
            print(f"{'wrong' if finding.is_fault else 'note'}: {finding}")
        print(f"{len(paths)} checked, {faults} found wrong")
    raise typer.Exit(ExitCode.WRONG if faults else ExitCode.OK)


def _verify(storage: Storage, path: Path, work: Path) -> Iterable[Finding]:
    if _is_data_directory(path):
        return directory_check.check_directory(storage, path, work)
    if path.name == directory_check.MANIFEST_NAME:
        return directory_check.check_manifest(storage, path)
    if path.name.endswith(SUFFIX):
        try:
            return list(directory_check.check_bundle(storage, path))
        except ValueError as error:
            raise UsageError(str(error)) from error
    raise UsageError(f"not a data directory, bundle or manifest: {path}")


@app.command(epilog=_EXIT_STATUS, short_help="Make the index anew.")
def reindex(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A data directory.")],
    as_json: AsJson = False,
) -> None:
    """Make the LMDB index of a data directory anew, from its manifest and bundles.

    Nothing is lost: the index holds nothing that they do not. The old one is replaced only when
    the new one is complete.
    """
    with _exit_codes():
        if not _is_data_directory(path):
            raise UsageError(f"not a data directory: {path}")
        storage = Storage()
        with _locked(storage, path):
            bundles = rebuild(storage, path)
    if as_json:
        print(json.dumps({"bundles": bundles}))
    else:
        print(f"index made anew from {bundles} bundles")


@app.command(epilog=_EXIT_STATUS, short_help="Show layers, debt and reads by chunk.")
def stat(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A data directory.")],
    as_json: AsJson = False,
) -> None:
    """Show layers, bytes, debt, write amplification, and how many layers a read may look into.

    Chunk by chunk, the worst first. Debt is what lies above a stripe's newest image. A server may
    have the directory open.
    """
    with _exit_codes():
        if not _is_data_directory(path):
            raise UsageError(f"not a data directory: {path}")
        found = read_directory(Storage(), path)
    if as_json:
        print(json.dumps(found.as_json(), indent=2))
        return
    console = _console()
    for table in layer_stat_tables.tables(found):
        console.print(table)
    for line in layer_stat_tables.lines(found):
        print(line)


@app.command(epilog=_EXIT_STATUS, short_help="Draw the layers of a directory.")
def draw(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="A data directory.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.svg", help="Not to stdout.")
    ] = None,
    chunk: Annotated[
        str, typer.Option(metavar="SPEC", help=f"Which chunks: {chunk_filter.FORMS}.")
    ] = "all",
) -> None:
    """Draw the plane of keys and LSNs, as SVG: L0, delta and image layers, the horizon, points and
    leases.

    A column is a stripe of a chunk, LSNs grow upwards. The manifest and the bundles' directories
    are read, no page is.
    """
    with _exit_codes():
        if not _is_data_directory(path):
            raise UsageError(f"not a data directory: {path}")
        try:
            wanted = chunk_filter.parse(chunk)
        except ValueError as error:
            raise UsageError(str(error)) from error
        storage = Storage()
        with _locked(storage, path):
            text = layer_svg.svg(layer_draw.read_drawing(storage, path, wanted))
        if output is None:
            print(text, end="")
        else:
            output.write_text(text, encoding="utf-8")


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)


def _print_table(console: Console, title: str, rows: Iterable[dict[str, Any]]) -> None:
    table = Table(title=title, title_justify="left", box=None)
    for number, row in enumerate(rows):
        if number == 0:
            for name, value in row.items():
                table.add_column(name, justify="right" if isinstance(value, int) else "left",
                                 overflow="fold")  # fmt: skip
        table.add_row(*(Text(str(value)) for value in row.values()))
    console.print(table)


def main() -> None:
    app(prog_name="layertool")


if __name__ == "__main__":
    main()
