"""Settings: defaults, the file, `--set`, limits, and names that do not exist."""

from pathlib import Path

import pytest

from server import config
from server.config import SettingError, Settings


def test_defaults_are_within_their_limits() -> None:
    assert config.from_values({d.name: d.default for d in config.descriptions()}) == Settings()
    for description in config.descriptions():
        assert description.doc
        if isinstance(description.default, str):
            assert description.choices[0] == description.default
        else:
            assert description.least <= description.default <= description.most


def test_words(tmp_path: Path) -> None:
    (tmp_path / config.FILE_NAME).write_text('durability = "s3"\n')
    assert config.load(tmp_path).durability == "s3"
    assert config.load(tmp_path, ["durability=local"]).durability == "local"


def test_assignments_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / config.FILE_NAME).write_text("connections_max = 7\nwait_lsn_timeout = 2\n")
    assert config.load(tmp_path).connections_max == 7
    settings = config.load(tmp_path, ["connections_max=9", "send_timeout = 1.5"])
    assert (settings.connections_max, settings.wait_lsn_timeout) == (9, 2.0)
    assert settings.send_timeout == 1.5
    assert isinstance(settings.wait_lsn_timeout, float)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / config.FILE_NAME).mkdir()
    with pytest.raises(SettingError, match="Is a directory"):
        config.load(tmp_path)


def test_without_a_file(tmp_path: Path) -> None:
    assert config.load(tmp_path) == config.load(None) == Settings()


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("connection_max=1", "did you mean connections_max"),
        ("zzz=1", "no setting is called 'zzz'"),
        ("connections_max", "expected name=value"),
        ("connections_max=", "expected a whole number from 1 to 10000"),
        ("connections_max=1.5", "a whole number"),
        ("connections_max=0", "from 1 to 10000"),
        ("connections_max=10001", "from 1 to 10000"),
        ("wait_lsn_timeout=nan", "a number from 0.0 to 3600.0 s"),
        ("wait_lsn_timeout=-1", "a number"),
        ("memory_bytes_max=1GB", "a whole number"),
        ("durability=S3", "durability = S3: expected local or s3"),
        ("fencing=1", "expected on or off"),
    ],
)
def test_assignments_that_are_errors(assignment: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        config.load(None, [assignment])


@pytest.mark.parametrize(
    "text",
    [
        "connections_max = true",
        'connections_max = "7"',
        "connections_max = 7.0",
        "connections = 7",
        "durability = 1",
        "fencing = false",
        "[service]\nconnections_max = 7",
        "connections_max == 7",
        "connections_max = 7\nconnections_max = 7",
    ],
)
def test_files_that_are_errors(tmp_path: Path, text: str) -> None:
    (tmp_path / config.FILE_NAME).write_text(text)
    with pytest.raises(SettingError):
        config.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:64000", ("127.0.0.1", 64000)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:5", ("::1", 5)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert config.parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", ":1", "host:", "host:x", "host:65536", "[]:1"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        config.parse_address(text)
