"""The command line as scripts see it: output, keys and exit statuses."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from formats import page as page_kernel
from formats import page_checksum
from server import cli, config, page_description
from server.config import Settings
from server.page_service import PageService
from tests.fixtures.fake_store import FakeIdentity, page_of, small_store

TABLE = (1663, 5, 16384, 0)

# Written down a second time on purpose: scripts rely on these.
STATUS_KEYS = [
    "tenant",
    "timeline",
    "received_lsn",
    "flushed_lsn",
    "ready_lsn",
    "durable_lsn",
    "remote_lsn",
    "horizon_lsn",
    "horizon_time",
    "commit_time",
    "slot",
    "source",
    "state",
    "error",
    "lag_bytes",
    "layer_count",
    "layer_bytes",
    "journal_bytes",
    "backup",
    "backup_lag_bytes",
    "backup_pending_bytes",
    "epoch",
    "compaction",
    "l0_count",
    "l0_slowed_count",
    "l0_wait_count",
    "l0_bytes",
    "debt_bytes",
    "debt_version_count",
    "image_wanted_count",
    "damaged_count",
    "damaged",
    "flush_bytes",
    "compaction_bytes",
    "write_amplification",
    "layers_read_mean",
    "layers_read_p99",
    "layers_read_max",
    "horizon_held_by",
    "retained_lsn",
    "point_count",
    "lease_count",
    "held_bytes",
    "cache_bytes",
    "cache_hit_count",
    "cache_miss_count",
    "evicted_count",
    "remote_read_requests",
    "remote_read_bytes",
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    service = PageService(small_store(), Settings(wait_lsn_timeout=0.1))
    host, port = service.start("127.0.0.1", 0)
    yield f"{host}:{port}"
    service.stop()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments)


def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_status_as_json(address: str) -> None:
    result = run("status", "--connect", address, "--json")
    assert result.exit_code == 0
    status = json.loads(result.stdout)
    assert list(status) == [*STATUS_KEYS, "counters"]
    assert status["counters"] == {"records_skipped": 7}
    assert status["error"] == "the disk is full"
    assert status["tenant"] == FakeIdentity().tenant
    assert status["ready_lsn"] == "0/1000"
    assert status["remote_lsn"] is None and status["debt_bytes"] is None
    assert status["layer_bytes"] == 12345
    assert (status["layers_read_mean"], status["layers_read_p99"]) == (1.25, 4)
    assert (status["write_amplification"], status["compaction"]) == (2.5, "merging L0")


def test_status_for_people(address: str) -> None:
    result = run("status", "--connect", address)
    assert result.exit_code == 0
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert set(STATUS_KEYS) < set(rows)
    assert rows["records_skipped"].strip() == "7"
    assert rows["remote_lsn"].strip() == "-"


def test_a_page_is_described(address: str) -> None:
    result = run("page", "1663/5/16384", "main", "7", "--lsn", "0/900", "--connect", address)
    assert result.exit_code == 0
    assert "LSN" in result.stdout and "line pointers" in result.stdout


def test_a_page_is_written(address: str, tmp_path: Path) -> None:
    wanted = page_of(TABLE, 7, 0x900)
    arguments = ["page", "1663/5/16384", "main", "7", "--lsn", "0/900", "--connect", address]
    assert run(*arguments, "--out", str(tmp_path / "page")).exit_code == 0
    assert (tmp_path / "page").read_bytes() == wanted
    assert run(*arguments, "--out", "-").stdout_bytes == wanted
    assert run(*arguments, "--out", str(tmp_path)).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["1663/5/16384", "main", "100", "--lsn", "0/900"], 1, "block 100 is past the end"),
        (["1663/5/16384", "main", "0", "--lsn", "0/9000"], 1, "ready is 0/1000"),
        (["1663/5/16384", "main", "0", "--lsn", "900"], 2, "not an LSN"),
        (["1663/5/16384", "main", "0"], 2, "--lsn"),
        (["1663/5/16384", "heap", "0", "--lsn", "0/900"], 2, "main, fsm, vm, init"),
        (["1663/5", "main", "0", "--lsn", "0/900"], 2, "SPC/DB/REL"),
        (["1663/5/4294967296", "main", "0", "--lsn", "0/900"], 2, "32 bits"),
        (["1663/5/16384", "main", "-1", "--lsn", "0/900"], 2, "-1"),
        (["1663/5/16384", "main", "4294967295", "--lsn", "0/900"], 2, "less than or equal"),
    ],
)
def test_page_errors(address: str, arguments: list[str], code: int, said: str) -> None:
    result = run("page", "--connect", address, *arguments)
    assert result.exit_code == code
    assert said in result.stderr


def test_asking_a_server_does_not_take_the_engine() -> None:
    """Half of the time of a command would be its imports."""
    code = "import sys, server.cli; print(*(name for name in sys.modules if name[:7] == 'engine.'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() in ([], ["engine._cython_shared"])


def test_nobody_answers() -> None:
    for arguments in (["status"], ["page", "1/2/3", "main", "0", "--lsn", "0/1"]):
        result = run(*arguments, "--connect", nobody())
        assert result.exit_code == 3
        assert "cannot connect" in result.stderr


def test_the_lsn_at_a_time(address: str) -> None:
    result = run("lsn", "--at", "2000-01-01 02:00:05.7+02", "--connect", address)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "0/5C0\n", "")
    result = run("lsn", "--at", "2000-01-01T00:00:05Z", "--connect", address, "--json")
    assert json.loads(result.stdout) == {
        "lsn": "0/5C0", "commit_time": "2000-01-01 00:00:05+00", "is_final": True,
    }  # fmt: skip


def test_the_lsn_after_the_last_commit(address: str) -> None:
    result = run("lsn", "--at", "now", "--connect", address)
    assert (result.exit_code, result.stdout) == (0, "0/1000\n")
    assert "the last commit is of 2000-01-01 00:00:16+00" in result.stderr
    result = run("lsn", "--at", "now", "--connect", address, "--json")
    assert json.loads(result.stdout)["is_final"] is False
    assert result.stderr == ""


def test_the_time_at_an_lsn(address: str) -> None:
    result = run("time", "--at", "0/910", "--connect", address)
    assert (result.exit_code, result.stdout) == (0, "2000-01-01 00:00:09+00\n")
    result = run("time", "--at", "0/910", "--connect", address, "--json")
    assert json.loads(result.stdout) == {"lsn": "0/910", "commit_time": "2000-01-01 00:00:09+00"}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["lsn", "--at", "1999-12-31 23:00Z"], 1, "of 1999-12-31 23:00:00+00 cannot be read: the "
         "oldest one is 0/100"),
        (["lsn", "--at", "last week"], 2, "'last week': expected a time such as"),
        (["lsn"], 2, "--at"),
        (["time", "--at", "0/150"], 1, "no commit at or before 0/150 is known"),
        (["time", "--at", "0/10"], 1, "0/10 is below the horizon 0/100"),
        (["time", "--at", "0/1001"], 1, "ready is 0/1000"),
        (["time", "--at", "noon"], 2, "not an LSN"),
    ],
)  # fmt: skip
def test_time_errors(address: str, arguments: list[str], code: int, said: str) -> None:
    result = run(*arguments, "--connect", address)
    assert result.exit_code == code
    assert said in result.stderr


def test_wrong_usage(tmp_path: Path) -> None:
    assert run("status", "--connect", "nonsense").exit_code == 2
    assert run("serve").exit_code == 2
    assert run("serve", "--data-dir", str(tmp_path), "--listen", "x").exit_code == 2
    assert run("serve", "--data-dir", str(tmp_path), "--chunks", "some").exit_code == 2
    assert run("serve", "--data-dir", str(tmp_path), "--tenant", "abc").exit_code == 2
    assert run("serve", "--data-dir", str(tmp_path), "--set", "no_such=1").exit_code == 2
    assert run("detach").exit_code == 2
    assert run("explode").exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_settings_are_listed(tmp_path: Path) -> None:
    (tmp_path / config.FILE_NAME).write_text("connections_max = 7\n")
    arguments = ["--data-dir", str(tmp_path), "--set", "wait_lsn_timeout=5", "--show-settings"]
    result = run("serve", *arguments)
    assert result.exit_code == 0
    for setting in config.descriptions():
        assert setting.name in result.stdout
    assert re.search(r"connections_max +100 +7 ", result.stdout)
    assert re.search(r"wait_lsn_timeout +s +30\.0 +5\.0 ", result.stdout)


def test_help_names_every_option_and_status() -> None:
    for command in ("serve", "detach", "status", "page", "lsn", "time"):
        result = run(command, "--help")
        assert result.exit_code == 0
        assert "Exit status: 0" in result.stdout
    assert "--show-settings" in run("serve", "--help").stdout


def test_a_page_description() -> None:
    page = memoryview(bytearray(8192))
    page_kernel.init(page, 16)
    page_kernel.set_lsn(page, 0x1_0000_0028)
    tuple_bytes = memoryview(bytearray(b"x" * 24))
    page_kernel.add_item(page, tuple_bytes, 0, 24, 1, False, True)
    page_kernel.set_item(page, 1, page_kernel.item_offset(page, 1), 1, 24)
    checksum = page_checksum.checksum(page, 3)
    page[8:10] = checksum.to_bytes(2, "little")
    found = dict(page_description.describe(bytes(page), 3))
    assert found["LSN"] == "1/28"
    assert found["checksum"] == f"{checksum:#06x} (right)"
    assert found["line pointers"] == "1 (1 normal)"
    assert (found["lower"], found["upper"], found["special"]) == ("28", "8152", "8176")
    assert found["page size"] == "8192" and found["layout version"] == "4"
    assert "stale" in dict(page_description.describe(bytes(page), 4))["checksum"]


@pytest.mark.parametrize("fill", [b"\xff", b"\x5a", b"\x01"])
def test_a_description_of_nonsense(fill: bytes) -> None:
    assert dict(page_description.describe(fill * 8192, 0))["LSN"]
    assert page_description.describe(bytes(8192), 0) == [("content", "all zero: never initialised")]
