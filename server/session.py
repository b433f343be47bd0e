"""A client from its startup packet to its end: authentication, statements, errors.

    startup packet -> (cancel request: done) -> AuthenticationOk, parameters, key, ReadyForQuery
    Query          -> rows or an error, ReadyForQuery                       server/commands.py
                   -> or pagestream_v3: COPY BOTH until the client ends it  server/page_stream.py

Everyone is trusted: there is no authentication yet. Simple queries only; the messages of the
extended protocol get one clear error and are skipped until Sync, as PostgreSQL does after errors.
"""

import logging
from typing import TYPE_CHECKING

from engine.errors import ArgumentError, RequestError
from formats import pgwire
from formats.errors import CorruptionError
from formats.pgwire import ProtocolError
from server import commands
from server.connection import ClientGone, Connection, StatementError
from server.page_stream import PageStream

if TYPE_CHECKING:
    from server.page_service import PageService

log = logging.getLogger("pageserver.session")

_EXTENDED = frozenset((b"P", b"B", b"D", b"E", b"C", b"H"))
_COPY = frozenset((b"d", b"c", b"f"))


class Session:
    def __init__(self, connection: Connection, service: "PageService") -> None:
        self._connection = connection
        self._service = service

    def run(self) -> None:
        """Serve until the client leaves, breaks the protocol or is too slow, or we stop."""
        connection = self._connection
        try:
            if self._start():
                while not self._service.stopping:
                    if not self._handle(*connection.read_message()):
                        return
        except ProtocolError as error:
            log.warning("connection %d: %s", connection.process_id, error)
            self._say_goodbye(error)
        except ClientGone as reason:
            log.debug("connection %d: %s", connection.process_id, reason)
        if self._service.stopping:
            self._say_goodbye(StatementError("the page server is stopping", pgwire.ADMIN_SHUTDOWN))

    def _say_goodbye(self, error: StatementError | ProtocolError) -> None:
        try:
            self._connection.send_error(error, "FATAL")
        except ClientGone as reason:
            log.debug("connection %d: %s", self._connection.process_id, reason)

    # Startup -------------------------------------------------------------------------------------

    def _start(self) -> bool:
        """Whether a session follows."""
        connection, service = self._connection, self._service
        startup = connection.read_startup(service.settings.startup_timeout)
        if startup.code == pgwire.CANCEL_REQUEST:
            service.cancel(startup.process_id, startup.secret)
            return False
        if not service.admit(connection):
            limit = service.settings.connections_max
            message = f"too many connections: connections_max is {limit}"
            self._say_goodbye(StatementError(message, pgwire.TOO_MANY_CONNECTIONS))
            return False
        parts = []
        unknown = [name for name in startup.parameters if name.startswith("_pq_.")]
        if startup.code != pgwire.PROTOCOL_3_0 or unknown:
            parts.append(pgwire.negotiate_protocol_version(unknown))
        parts.append(pgwire.authentication_ok())
        for name, value in self._parameters().items():
            parts.append(pgwire.parameter_status(name, value))
        parts.append(pgwire.backend_key_data(connection.process_id, connection.secret))
        parts.append(pgwire.ready_for_query())
        connection.send(b"".join(parts))
        return True

    def _parameters(self) -> dict[str, str]:
        ids = self._service.store.ids
        version = 0 if ids is None else ids.pg_version
        return {
            "server_version": f"{version // 10_000}.{version % 10_000} (pageserver)",
            "server_encoding": "UTF8",
            "client_encoding": "UTF8",
            "DateStyle": "ISO, MDY",
            "integer_datetimes": "on",
            "standard_conforming_strings": "on",
        }

    # Messages ------------------------------------------------------------------------------------

    def _handle(self, tag: bytes, body: bytes) -> bool:
        """Answer one message; False: it was the last."""
        if tag == b"X":
            return False
        if tag == b"Q":
            self._execute(pgwire.parse_query(body))
        elif tag in _EXTENDED:
            self._refuse_extended()
        elif tag == b"F":
            self._connection.send_error(_unsupported("function calls are not supported"))
        elif tag not in _COPY and tag != b"S":
            raise ProtocolError(f"message {tag!r}: not one that a client may send now")
        if tag not in _COPY:  # what is left of a copy that an error ended needs no answer
            self._connection.send(pgwire.ready_for_query())
        return True

    def _refuse_extended(self) -> None:
        message = "the extended query protocol is not supported"
        hint = "Send simple queries, as psql does without \\bind, or PQexec."
        self._connection.send_error(_unsupported(message, hint))
        tag = b""
        while tag != b"S":
            tag, _ = self._connection.read_message()
            if tag == b"X":
                raise ClientGone("closed by the client")

    def _execute(self, text: str) -> None:
        try:
            answer = commands.execute(text, self._service, self._connection)
            if isinstance(answer, bytes):
                self._connection.send(answer)
            else:
                PageStream(self._service, self._connection).run()
        except StatementError as error:
            self._connection.send_error(error)
        except RequestError as error:
            is_usage = isinstance(error, ArgumentError)
            sqlstate = pgwire.INVALID_PARAMETER if is_usage else pgwire.DATA_UNAVAILABLE
            self._connection.send_error(StatementError(str(error), sqlstate))
        except (CorruptionError, OSError) as error:
            log.error("connection %d: %s: %s", self._connection.process_id, text[:200], error)
            is_damage = isinstance(error, CorruptionError)
            sqlstate = pgwire.DATA_CORRUPTED if is_damage else pgwire.IO_ERROR
            self._connection.send_error(StatementError(str(error), sqlstate))
        except (ClientGone, ProtocolError):
            raise
        except Exception as error:
            log.exception("connection %d: %s", self._connection.process_id, text[:200])
            message = f"internal error: {type(error).__name__}: {error}"
            self._connection.send_error(StatementError(message, pgwire.INTERNAL_ERROR))


def _unsupported(message: str, hint: str = "") -> StatementError:
    return StatementError(message, pgwire.FEATURE_NOT_SUPPORTED, hint)
