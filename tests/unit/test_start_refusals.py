"""What a page server that cannot start leaves alone: another one's bucket, and its slot."""

import socket
from pathlib import Path

import pytest

from engine.cluster_identity import Wanted
from engine.errors import DirectoryRefusedError
from engine.storage import Storage
from server import serve
from server.backup import binding
from server.backup.bucket_manifest import BucketManifest
from server.backup.lazy_start import begin_from_bucket
from server.config import Settings
from server.exit_code import ExitCode
from server.serve import ServeOptions
from server.start_refusals import Refused, refuse_anothers_slot
from tests.fixtures.memory_bucket import MemoryBucket
from tests.fixtures.restore_source import URL, Source, bring


def options(directory: Path, port: int, *sources: str, s3: str | None = None) -> ServeOptions:
    address = ("127.0.0.1", port)
    return ServeOptions(directory, sources, None, None, None, None, None, address, s3)


def test_an_address_in_use_leaves_the_bucket_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_bucket(*_: object) -> Storage:
        raise AssertionError("the bucket is asked")

    monkeypatch.setattr(serve, "_with_bucket", no_bucket)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code = serve.run(options(tmp_path, port, s3="s3://b/p"), Settings())
    assert code == ExitCode.WRONG
    assert f"cannot listen on 127.0.0.1:{port}" in caplog.text


def test_a_backup_of_something_else_is_left_to_its_writer(saved: Source, tmp_path: Path) -> None:
    bucket = MemoryBucket(saved.bucket.contents)
    before = dict(bucket.objects)
    chain = BucketManifest(bucket, lambda: 0.0)
    epoch = chain.read().epoch
    for wanted in (Wanted(chunks="hash:0/4"), Wanted(tenant="0" * 32), Wanted(timeline="1" * 32)):
        with pytest.raises(DirectoryRefusedError, match="was begun with"):
            begin_from_bucket(bucket, tmp_path / "new", Storage(), URL, wanted=wanted)
    assert chain.read().epoch == epoch
    assert bucket.objects == before


def test_a_restore_beside_its_server_does_not_take_the_slot(saved: Source, tmp_path: Path) -> None:
    storage, directory = Storage(), tmp_path / "new"
    refuse_anothers_slot(storage, directory)  # an empty one draws its own
    assert bring(saved.bucket, directory) is not None
    with pytest.raises(Refused, match=f"restored from {URL} .* --slot NAME"):
        refuse_anothers_slot(storage, directory)
    binding.write(storage, directory, binding.read(storage, directory, URL).expecting(9, 9))
    refuse_anothers_slot(storage, directory)  # it went on there, so the slot is its own


def test_it_is_refused_with_a_source_and_no_slot_alone(
    saved: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "new"
    assert bring(saved.bucket, directory) is not None
    assert serve.run(options(directory, 0, "host=nowhere"), Settings()) == ExitCode.REFUSED
    assert "has the replication slot of the server that writes there" in caplog.text


def test_nor_is_it_detached(
    saved: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def drop(*_: object) -> bool:
        raise AssertionError("a slot is dropped")

    monkeypatch.setattr(serve, "drop_slot", drop)
    directory = tmp_path / "new"
    assert bring(saved.bucket, directory) is not None
    assert serve.detach(directory, ["host=nowhere"], None) == ExitCode.REFUSED
    assert "has the replication slot of the server that writes there" in caplog.text
    with pytest.raises(AssertionError, match="a slot is dropped"):
        serve.detach(directory, ["host=nowhere"], "its_own")
