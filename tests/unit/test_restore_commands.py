"""`restore chunks` as a client sends it, on a store whose bundles are away."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import index_rebuild
from formats import pgwire
from server.client import PageClient, PageServerError
from server.config import Settings
from server.page_service import PageService
from server.remote_layers import RemoteLayers
from tests.fixtures.lazy_store import AwayStore, away, pages
from tests.fixtures.small_store import REL


@pytest.fixture
def served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[AwayStore, RemoteLayers, PageService, PageClient]]:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)
    found = away(tmp_path)
    remote = RemoteLayers(found.storage, found.small.store, 0)
    service = PageService(found.small.store, Settings(wait_lsn_timeout=0.1))
    service.restore_chunks = remote.restore_chunks
    host, port = service.start("127.0.0.1", 0)
    with PageClient(f"{host}:{port}") as client:
        yield found, remote, service, client
    service.stop()
    found.small.store.close()


Served = tuple[AwayStore, RemoteLayers, PageService, PageClient]


def test_one_row_says_what_was_done(served: Served) -> None:
    store, remote, _, client = served
    files = store.small.store.layers.state.files
    size = sum(file.bytes_total for file in files.values())
    assert rows(client, "restore chunks all") == [[len(files), len(files), 0, size]]
    assert rows(client, "RESTORE CHUNKS hash:0/1;") == [[len(files), 0, 0, 0]]
    assert pages(store.small, store.lsns) == store.expected
    status = remote.status()
    assert status["remote_read_bytes"] >= size
    assert status["cache_bytes"] > 0


def rows(client: PageClient, statement: str) -> list[list[int]]:
    return [[int(value) for value in row] for row in client.query(statement)]


@pytest.mark.parametrize(
    ("statement", "sqlstate", "text"),
    [
        ("restore chunks nonsense", pgwire.INVALID_PARAMETER, "expected all, slru:KIND"),
        ("restore chunks", pgwire.SYNTAX_ERROR, "unknown statement"),
        ("restore chunks all twice", pgwire.SYNTAX_ERROR, "unknown statement"),
    ],
)
def test_what_is_no_spec_is_refused(
    served: Served, statement: str, sqlstate: str, text: str
) -> None:
    with pytest.raises(PageServerError, match=text) as error:
        rows(served[3], statement)
    assert error.value.sqlstate == sqlstate


def test_without_a_bucket_it_is_refused(served: Served) -> None:
    _, _, service, client = served
    service.restore_chunks = None
    with pytest.raises(PageServerError, match="no bucket to restore from") as error:
        rows(client, "restore chunks all")
    assert error.value.sqlstate == pgwire.FEATURE_NOT_SUPPORTED


def test_a_bucket_that_does_not_answer_is_said(served: Served) -> None:
    store, _, _, client = served
    store.files.is_down = True
    with pytest.raises(PageServerError, match="connection refused") as error:
        rows(client, "restore chunks rel:{}/{}/{}".format(*REL))
    assert error.value.sqlstate == pgwire.IO_ERROR
    store.files.is_down = False
    assert rows(client, "restore chunks rel:{}/{}/{}".format(*REL))[0][1] > 0
