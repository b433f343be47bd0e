"""The thread that keeps WAL coming: finds a source that works, streams, and tries again.

Sources are tried in the order given, each time from the first. After a round in which none worked
it waits, longer each time, up to 5 s; up to 30 s when all of them refused for good, because a
person may still mend that. A disk that fails under the journal ends it: the process must start
anew. One that is full does not: the connection lasts, and nothing is taken from it for a while.
Where another server took the bucket over, it ends without another word to the source.
"""

import logging
import threading
from collections.abc import Sequence

from engine.journal import JournalFailedError
from engine.wal_intake import Hold
from formats.errors import CorruptionError
from server.replication import ReplicationConnection, Stopped, StopSignal, describe_source
from server.source_errors import SourceError
from server.wal_stream import HeldTooLong, WalStore, WalStream

RETRY_SECONDS_MIN = 0.2
RETRY_SECONDS_MAX = 5.0
REFUSED_SECONDS_MAX = 30.0

_log = logging.getLogger(__name__)


class WalReceiver:
    """Feeds `store.journal`, which must have been begun, until `stop`.

    For `status`: `state` is connecting, streaming, waiting, refused, failed or stopped; `source` is
    the one that it streams from; `error` says what went wrong last, "" while it streams; `hold` why
    it takes no WAL for now, though it streams.
    """

    def __init__(
        self,
        store: WalStore,
        sources: Sequence[str],
        slot: str,
        system_identifier: int,
        application_name: str = "",
    ) -> None:
        self._store = store
        self._sources = list(sources)
        self._slot = slot
        self._application_name = application_name or slot
        self._system_identifier = system_identifier
        self._stop = StopSignal()
        self._thread = threading.Thread(target=self._run, name="wal-receiver", daemon=True)
        self.state = "connecting"
        self.source: str | None = None
        self.error = ""
        self.hold: Hold | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Make what was received durable, report it, disconnect; returns when that is done."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        delay = RETRY_SECONDS_MIN
        while not self._is_over():
            received = self._store.journal.received_lsn
            refused = all([self._try(conninfo) for conninfo in self._sources])
            if self._store.journal.received_lsn != received:
                delay = RETRY_SECONDS_MIN
            if self._is_over() or self._stop.wait(delay):
                break
            delay = min(2 * delay, REFUSED_SECONDS_MAX if refused else RETRY_SECONDS_MAX)
        if self.state != "failed":
            self.state = "stopped"

    def _is_over(self) -> bool:
        """Whether to receive no more: stopped, the disk failed, another server has the bucket."""
        return self.state == "failed" or self._stop.is_set() or self._store.remote.is_fenced

    def _try(self, conninfo: str) -> bool:
        """Stream from one source until that ends; whether it refused for good."""
        if self._is_over():
            return False
        source = describe_source(conninfo)
        try:
            self._stream_from(conninfo, source)
        except (Stopped, HeldTooLong):
            return False
        except SourceError as error:
            self._note("refused" if error.permanent else "waiting", f"{source}: {error}")
            return error.permanent
        except CorruptionError as error:
            self._note("refused", f"{source}: {error}")
            return True
        except (OSError, JournalFailedError) as error:
            state = "failed" if self._store.journal.has_failed else "waiting"
            self._note(state, f"the journal cannot be written: {error}")
        except Exception as error:
            # A fault of ours must not end the thread: another attempt is worth more than none.
            _log.exception("fault in the WAL receiver")
            self._note("waiting", f"{type(error).__name__}: {error}")
        else:
            self._note("waiting", f"{source} shut down")
        finally:
            self.source = None
        return False

    def _stream_from(self, conninfo: str, source: str) -> None:
        self.state = "connecting"
        connection = ReplicationConnection.open(conninfo, self._application_name, self._stop)
        try:
            stream = WalStream(
                connection, self._store, self._system_identifier, self._slot, self._on_hold
            )
            self.source = source
            stream.run(self._on_streaming)
        finally:
            connection.close()

    def _on_hold(self, hold: Hold | None) -> None:
        self.hold = hold

    def _on_streaming(self) -> None:
        self.state, self.error = "streaming", ""
        _log.info("receiving WAL from %s", self.source)

    def _note(self, state: str, error: str) -> None:
        if error != self.error:
            _log.warning("WAL receiver %s: %s", state, error)
        self.state, self.error, self.hold = state, error, None
