"""Kill points: which there are, and what is no name of one."""

from pathlib import Path

import pytest

from engine.kill_points import COUNT, PLACES, KillingStorage, parse, place_of

ROOT = Path("/data")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("", "directory"),
        ("server_id.new", "server_id"),
        ("manifest", "manifest"),
        ("manifest.new", "manifest"),
        ("layers", "layers"),
        ("layers/l0-00000000-00000001-00000001.bundle", "layers"),
        ("index", "index"),
        ("index.old/data.mdb", "index"),
        ("journal", "journal"),
        ("journal/000000010000000000000005", "journal"),
        ("journal/000000010000000000000005.sums", "journal_sums"),
        ("journal/00000002.history.new", "journal_history"),
    ],
)
def test_the_place_of_a_file(path: str, place: str) -> None:
    assert place_of(ROOT, ROOT / path) == place
    assert place in PLACES


def test_a_file_without_a_place() -> None:
    with pytest.raises(ValueError, match="/data/elsewhere/x has no place"):
        place_of(ROOT, ROOT / "elsewhere" / "x")


@pytest.mark.parametrize(
    "text",
    ["", "count:1", "layers", "layers.sync:1", "layers.sync.before", "layers.sync.before:0",
     "layers.sync.before:-1", "layers.sync.before:x", "layers.sync.middle:1", "layer.sync.before:1",
     "layers.fsync.before:1", "layers.sync.before:1:2", "layers.sync.before.after:1"],
)  # fmt: skip
def test_what_is_no_kill_point(text: str) -> None:
    with pytest.raises(ValueError, match=r"PAGESERVER_KILL_AT=.*expected PLACE\.OPERATION\.PHASE"):
        KillingStorage(ROOT, text)


def test_what_is_one() -> None:
    assert parse("layers.append.middle:12") == ("layers.append.middle", 12)
    assert parse(COUNT) == ("", 0)
