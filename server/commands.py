"""The statements of a session, typed in psql or sent by a client.

One statement per query, words separated by spaces, the verb in any case. An LSN left out means the
newest that is ready; one that is not ready yet is waited for.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from formats import lsn as lsn_text
from formats import pgwire
from formats.chunk import FORK_NAMES, SLRU_NAMES, Fork, Slru
from formats.pagestream import GET_PAGE, PAGE_BYTES, PAGE_REPLY_BYTES, PageBatch
from formats.pgwire import BYTEA_OID, TEXT_OID
from server import restore_commands, retention_commands, time_commands
from server.connection import Connection, StatementError

if TYPE_CHECKING:
    from server.page_service import PageService

USAGES = (
    "get_page SPC DB REL FORK BLOCK LSN",
    "show status",
    "show relations [LSN]",
    "show files [LSN]",
    "show file NAME [LSN]",
    "show slru [LSN]",
    *retention_commands.USAGES,
    *time_commands.USAGES,
    restore_commands.USAGE,
    "pagestream_v3 TENANT TIMELINE",
    "set ...",
)
_FORKS = {name: int(fork) for fork, name in FORK_NAMES.items()}


class EnterPageStream:
    """The answer to `pagestream_v3`: the connection becomes a page stream."""


def execute(text: str, service: "PageService", connection: Connection) -> bytes | EnterPageStream:
    """The messages that answer a statement, without ReadyForQuery."""
    words = text.strip().rstrip(";").split()
    if not words:
        return pgwire.empty_query_response()
    verb = words[0].lower()
    if verb == "set":
        return pgwire.command_complete("SET")
    if verb.startswith("pagestream"):
        return _enter_page_stream(verb, words[1:], service)
    run = _Statement(service, connection)
    if verb in retention_commands.VERBS:
        answer = retention_commands.execute(words, service.store, run.lsn)
        if answer is not None:
            return _rows(*answer)
    if verb == "get_page" and len(words) == 7:
        return run.get_page(words[1:])
    if verb == "show" and len(words) >= 2:
        shown = run.shows.get(words[1].lower())
        if shown is not None:
            show, least, most = shown
            if least <= len(words) - 2 <= most:
                return show(words[2:])
    if [verb, *words[1:2]] == ["lsn", "at"] and len(words) > 2:
        return _row(*time_commands.lsn_at(words[2:], service.store))
    if [verb, *words[1:2]] == ["time", "at"] and len(words) == 3:
        return _row(*time_commands.time_at(words[2], service.store, run.lsn))
    if [word.lower() for word in words[:2]] == ["restore", "chunks"] and len(words) == 3:
        return _row(*run.restore_chunks(words))
    raise StatementError(
        f"unknown statement: {' '.join(words)[:100]}",
        pgwire.SYNTAX_ERROR,
        "The statements are: " + "; ".join(USAGES),
    )


def _enter_page_stream(verb: str, ids: list[str], service: "PageService") -> EnterPageStream:
    if verb != "pagestream_v3":
        message = f"{verb} is not supported: its replies cannot be told apart; use pagestream_v3"
        raise StatementError(message, pgwire.FEATURE_NOT_SUPPORTED)
    held = service.store.ids
    if held is None:
        raise StatementError("base backup not complete", pgwire.DATA_UNAVAILABLE)
    wanted = [held.tenant, held.timeline]
    if [word.lower() for word in ids] != wanted:
        raise StatementError(
            f"this server has tenant {wanted[0]}, timeline {wanted[1]}; "
            f"asked for was {' '.join(ids)[:100] or 'none'}",
            pgwire.UNDEFINED_OBJECT,
            "pagestream_v3 TENANT TIMELINE",
        )
    return EnterPageStream()


class _Statement:
    """One statement in execution."""

    def __init__(self, service: "PageService", connection: Connection) -> None:
        self._service = service
        self._store = service.store
        self._connection = connection
        # name -> (method, least and most number of arguments)
        self.shows: dict[str, tuple[Callable[[list[str]], bytes], int, int]] = {
            "status": (self.status, 0, 0),
            "relations": (self.relations, 0, 1),
            "files": (self.files, 0, 1),
            "file": (self.file, 1, 2),
            "slru": (self.slru, 0, 1),
        }

    def lsn(self, words: list[str]) -> int:
        """The LSN to answer at: the one in `words`, waited for, or the newest."""
        lsn = _parse_lsn(words[0]) if words else self._store.ready_lsn
        return self._service.resolve_lsn(lsn, self._connection)

    def get_page(self, words: list[str]) -> bytes:
        spc, db, rel, block = (_parse_number(words[i]) for i in (0, 1, 2, 4))
        if words[3] not in _FORKS:
            message = f"fork {words[3]!r}: expected one of {', '.join(_FORKS)}"
            raise StatementError(message, pgwire.INVALID_PARAMETER)
        page = memoryview(bytearray(PAGE_REPLY_BYTES))
        batch = PageBatch(1, page, page)
        batch.load(GET_PAGE, spc, db, rel, _FORKS[words[3]], block, _parse_lsn(words[5]))
        self._service.resolve_statement(batch, self._connection)
        self._store.get_pages(batch, 1, page)
        if batch.failed():
            raise StatementError(batch.error_text(0), pgwire.DATA_UNAVAILABLE)
        value = pgwire.bytea(bytes(page[:PAGE_BYTES]))
        return _rows([("get_page", BYTEA_OID)], [[value]])

    def status(self, _: list[str]) -> bytes:
        """Counters come last, as `counter NAME`."""
        status = dict(self._service.status())
        counters = status.pop("counters", {})
        rows = [(name, value) for name, value in status.items()]
        if isinstance(counters, dict):
            rows += [(f"counter {name}", value) for name, value in sorted(counters.items())]
        texts = [[_text(name), None if value is None else _text(value)] for name, value in rows]
        return _rows([("name", TEXT_OID), ("value", TEXT_OID)], texts)

    def relations(self, words: list[str]) -> bytes:
        columns = ["spc", "db", "rel", "fork", "blocks"]
        relations = self._store.relations(self.lsn(words))
        rows = (
            [_text(spc), _text(db), _text(rel), _text(FORK_NAMES[Fork(fork)]), _text(blocks)]
            for spc, db, rel, fork, blocks in relations
        )
        return _rows([(name, TEXT_OID) for name in columns], rows)

    def slru(self, words: list[str]) -> bytes:
        """`segment` is the file's name."""
        columns = ["kind", "segment", "blocks"]
        segments = self._store.slru_segments(self.lsn(words))
        rows = (
            [_text(SLRU_NAMES[Slru(kind)]), _text(f"{segment:04X}"), _text(blocks)]
            for kind, segment, blocks in segments
        )
        return _rows([(name, TEXT_OID) for name in columns], rows)

    def restore_chunks(self, words: list[str]) -> restore_commands.Answer:
        service = self._service
        return restore_commands.execute(
            words, service.restore_chunks, self._connection, lambda: service.stopping
        )

    def files(self, words: list[str]) -> bytes:
        names = self._store.files(self.lsn(words))
        return _rows([("name", TEXT_OID)], ([_text(name)] for name in names))

    def file(self, words: list[str]) -> bytes:
        lsn = self.lsn(words[1:])
        if words[0] not in self._store.files(lsn):
            message = f"no file {words[0]!r} at {lsn_text.show(lsn)}"
            raise StatementError(message, pgwire.UNDEFINED_FILE, "show files lists them.")
        value = pgwire.bytea(self._store.file(words[0], lsn))
        return _rows([("file", BYTEA_OID)], [[value]])


def _rows(columns: list[tuple[str, int]], rows: Iterable[Sequence[bytes | None]]) -> bytes:
    messages = [pgwire.row_description(columns)]
    messages += [pgwire.data_row(row) for row in rows]
    messages.append(pgwire.command_complete(f"SELECT {len(messages) - 1}"))
    return b"".join(messages)


def _row(columns: Sequence[tuple[str, int]], values: Sequence[bytes]) -> bytes:
    return _rows(list(columns), [values])


def _text(value: object) -> bytes:
    return str(value).encode()


def _parse_lsn(word: str) -> int:
    try:
        return lsn_text.parse(word)
    except ValueError as error:
        raise StatementError(str(error), pgwire.INVALID_PARAMETER) from None


def _parse_number(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 10 and int(word) < 1 << 32):
        message = f"{word!r}: expected a number below 2^32"
        raise StatementError(message, pgwire.INVALID_PARAMETER)
    return int(word)
