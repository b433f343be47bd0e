"""Every setting of the server: name, unit, default, limits, and what it is for.

Settings live in D/pageserver.toml, one `name = value` each; `--set name=value` wins over the file.
A name that is not here is an error, and so is a value outside of its limits: a typing error must
not silently become a default.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_NAME = "pageserver.toml"

MIB = 1 << 20
GIB = 1 << 30


class SettingError(ValueError):
    """A setting that does not exist, or a value that it cannot have."""


def _setting(default: float, unit: str, least: float, most: float, doc: str) -> Any:
    return dataclasses.field(
        default=default, metadata={"unit": unit, "least": least, "most": most, "doc": doc}
    )


def _word(choices: tuple[str, ...], doc: str) -> Any:
    """One of these words; the first is the default."""
    metadata = {"unit": "", "least": 0, "most": 0, "doc": doc, "choices": choices}
    return dataclasses.field(default=choices[0], metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The values in force. Whole numbers, except where the default has a fraction or is a word."""

    memory_bytes_max: int = _setting(
        GIB, "bytes", 64 * MIB, 1 << 50, "the one memory budget: memtables, caches, queues"
    )
    connections_max: int = _setting(
        100, "", 1, 10_000, "clients served at a time; further ones get an error"
    )
    batch_pages_max: int = _setting(
        64, "pages", 1, 1024, "pages of one client answered together; 8 KiB of memory each"
    )
    flush_seconds_max: float = _setting(
        60.0, "s", 0.1, 86_400.0, "how long a page version waits in memory before it is flushed"
    )
    retention_seconds: float = _setting(
        7 * 86_400.0, "s", 0.0, 1e10, "how long every LSN stays readable; 0 sets no bound in time"
    )
    retention_wal_bytes: int = _setting(
        GIB, "bytes", 0, 1 << 62, "how much WAL every LSN stays readable for, if that is longer"
    )
    compaction_bytes_per_second: int = _setting(
        256 * MIB, "bytes/s", 0, 1 << 50,
        "what merges, images and rewriting may write while ingest keeps up; 0 sets no bound",
    )  # fmt: skip
    journal_bytes_max: int = _setting(
        16 * GIB, "bytes", 64 * MIB, 1 << 50,
        "WAL kept here that is not in layers yet; beyond it the source keeps its WAL",
    )  # fmt: skip
    disk_reserve_bytes: int = _setting(
        256 * MIB, "bytes", 0, 1 << 50,
        "left free by WAL and layers; on a small file system at most a twentieth of it",
    )  # fmt: skip
    cache_bytes_max: int = _setting(
        0, "bytes", 0, 1 << 62,
        "of layer files that stay here; those that S3 has too go beyond it; 0: all stay",
    )  # fmt: skip
    block_cache_bytes: int = _setting(
        GIB, "bytes", 16 * MIB, 1 << 50, "of the local file that caches layer files only S3 has"
    )
    durability: str = _word(
        ("local", "s3"), "what is reported to the source as applied: what is in layers, or in S3"
    )
    fencing: str = _word(
        ("on", "off"),
        "off: a store without conditional PUT may do; nothing keeps two writers apart",
    )
    backup_journal_seconds: float = _setting(
        10.0, "s", 0.1, 3600.0, "how long WAL waits before it goes to S3"
    )
    backup_journal_bytes: int = _setting(
        16 * MIB, "bytes", 64 << 10, GIB, "how much WAL waits before it goes to S3"
    )
    backup_parallel: int = _setting(4, "", 1, 64, "layer files that go to S3 at a time")
    backup_bytes_per_second: int = _setting(
        0, "bytes/s", 0, 1 << 50, "what the upload may send; 0 sets no bound"
    )
    backup_source_bytes: int = _setting(
        GIB, "bytes", 0, 1 << 50,
        "WAL that a second slot may keep at the source until it is in S3; 0: no such slot",
    )  # fmt: skip
    backup_grace_seconds: float = _setting(
        86_400.0, "s", 1.0, 1e9, "how long what nothing names any more stays in S3"
    )
    wait_lsn_timeout: float = _setting(
        30.0, "s", 0.0, 3600.0, "how long a request waits for an LSN that is not ready yet"
    )
    startup_timeout: float = _setting(
        10.0, "s", 0.1, 600.0, "how long a new client may take for its startup packet"
    )
    send_timeout: float = _setting(
        30.0, "s", 0.1, 3600.0, "how long a client may take to accept one batch of replies"
    )


@dataclass(frozen=True)
class Description:
    """What `--show-settings` shows of one setting."""

    name: str
    unit: str
    default: int | float | str
    least: float
    most: float
    doc: str
    choices: tuple[str, ...] = ()


def descriptions() -> list[Description]:
    return [
        Description(field.name, default=getattr(Settings, field.name), **field.metadata)
        for field in dataclasses.fields(Settings)
    ]


_DESCRIPTIONS = {description.name: description for description in descriptions()}


def load(directory: Path | None, assignments: Iterable[str] = ()) -> Settings:
    """The settings of D/pageserver.toml, where there is one, and `name=value` texts over them."""
    values: dict[str, Any] = {}
    if directory is not None and (directory / FILE_NAME).exists():
        values |= _read_file(directory / FILE_NAME)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise SettingError(f"--set {assignment}: expected name=value")
        values[name.strip()] = _from_text(name.strip(), text.strip())
    return from_values(values)


def from_values(values: Mapping[str, Any]) -> Settings:
    checked: dict[str, Any] = {name: _checked(name, value) for name, value in values.items()}
    return Settings(**checked)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path}: {error}") from None
    except OSError as error:
        raise SettingError(str(error)) from None


def _describe(name: str) -> Description:
    if name in _DESCRIPTIONS:
        return _DESCRIPTIONS[name]
    close = difflib.get_close_matches(name, _DESCRIPTIONS, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise SettingError(f"no setting is called {name!r}{hint}")


def _from_text(name: str, text: str) -> int | float | str:
    default = _describe(name).default
    if isinstance(default, str):
        return text
    try:
        return int(text) if type(default) is int else float(text)
    except ValueError:
        raise SettingError(f"{name} = {text}: {_expected(name)}") from None


def _checked(name: str, value: Any) -> int | float | str:
    description = _describe(name)
    default = description.default
    if isinstance(default, str):
        if value not in description.choices:
            raise SettingError(f"{name} = {value}: {_expected(name)}")
        return str(value)
    wanted = type(default)
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted or not description.least <= value <= description.most:
        raise SettingError(f"{name} = {value}: {_expected(name)}")
    checked: int | float = value
    return checked


def _expected(name: str) -> str:
    description = _DESCRIPTIONS[name]
    if description.choices:
        return f"expected {' or '.join(description.choices)}"
    kind = "a whole number" if type(description.default) is int else "a number"
    unit = f" {description.unit}" if description.unit else ""
    return f"expected {kind} from {description.least} to {description.most}{unit}"


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT; an IPv6 address stands in brackets."""
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r}: expected HOST:PORT")
    return bare, int(port)
