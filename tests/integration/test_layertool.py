"""`layertool` as scripts use it: exit statuses, JSON, and damage anywhere in a data directory."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.journal import Journal
from engine.storage import Storage
from formats.rmgr import HEAP
from tests.fixtures import bundles
from tests.fixtures.small_wal import SmallWal
from tests.fixtures.stopped_directory import StoppedDirectory, fill
from tests.fixtures.wal_builder import MIB, Record, Reference, WalBuilder
from tools.layertool import app

SEGMENT = 1 << 20
START = 5 * SEGMENT


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit status, stdout and stderr, without the cost of a new interpreter."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def directory(tmp_path: Path) -> StoppedDirectory:
    """Manifest, bundles, index and a journal, as a server leaves them."""
    directory = StoppedDirectory(tmp_path, SEGMENT)
    fill(directory)
    directory.index.close()
    wal = SmallWal(START, SEGMENT)
    while len(wal.data) < SEGMENT + 5000:
        wal.add(2000)
    journal = Journal(directory.storage, tmp_path / "journal", SEGMENT)
    journal.begin(START, 1)
    for at in range(0, len(wal.data), 50_000):
        journal.append(START + at, bytes(wal.data[at : at + 50_000]))
    journal.sync()
    journal.close()
    (tmp_path / "lock").touch()
    return directory


def test_a_sound_directory(directory: StoppedDirectory) -> None:
    status, text, _ = run("verify", directory.root)
    assert (status, text) == (0, "1 checked, 0 found wrong\n")
    bundle = directory.layers / bundles.l0(2).text
    status, text, _ = run("verify", bundle, directory.root / "manifest", "--json")
    assert (status, json.loads(text)) == (0, {"faults": 0, "findings": []})


def test_as_a_command(directory: StoppedDirectory) -> None:
    command = [sys.executable, "-m", "tools.layertool", "verify", str(directory.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1 checked, 0 found wrong\n")


def test_a_live_directory_is_refused_with_a_hint(directory: StoppedDirectory) -> None:
    held = Storage().lock(directory.root / "lock")
    bundle = directory.layers / bundles.l0(2).text
    for arguments in (("verify", directory.root), ("dump", bundle), ("reindex", directory.root)):
        status, text, error = run(*arguments)
        assert (status, text) == (4, "")
        assert "in use by another process; stop it first" in error
    Storage().close(held)
    assert run("verify", directory.root)[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [("verify",), ("verify", "nowhere"), ("dump", "nowhere"), ("reindex", "nowhere"), ("melt",),
     ("dump", __file__), ("verify", __file__)],
)  # fmt: skip
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2


def files_of(root: Path) -> list[Path]:
    """Files whose every byte means something: not LMDB's, which has free space inside."""
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.parent.name != "index" and path.stat().st_size
    ]


def test_a_flipped_byte_anywhere_is_found(directory: StoppedDirectory) -> None:
    rng = random.Random(1)
    files = files_of(directory.root)
    assert len(files) == 8  # manifest, three bundles, two segments with sums
    for path in files:
        whole = path.read_bytes()
        for _ in range(4):
            broken = bytearray(whole)
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            path.write_bytes(broken)
            status, text, _ = run("verify", directory.root)
            assert status == 1, path
            assert path.name in text
        path.write_bytes(whole)
    assert run("verify", directory.root)[0] == 0


def test_a_missing_file_is_found(directory: StoppedDirectory) -> None:
    path = directory.layers / bundles.l0(3).text
    path.unlink()
    status, text, _ = run("verify", directory.root)
    assert status == 1
    assert path.name in text


def test_leftovers_are_no_fault(directory: StoppedDirectory) -> None:
    left = bundles.write(directory.layers, bundles.l0(9), [])
    (directory.layers / "other.bundle").touch()
    with (directory.root / "manifest").open("ab") as manifest:
        manifest.write(b"\x05\x00")
    status, text, _ = run("verify", directory.root, "--json")
    found = json.loads(text)
    assert (status, found["faults"]) == (0, 0)
    said = " ".join(finding["what"] + finding["where"] for finding in found["findings"])
    assert len(found["findings"]) == 3
    assert left.name.text in said
    assert "other.bundle" in said
    assert "torn tail of 2 bytes" in said


def test_an_index_behind_the_manifest_is_no_fault(directory: StoppedDirectory) -> None:
    directory.write(bundles.l0(5), [(bundles.relation_key(1), 4, 900, bundles.record(b"x"))])
    assert run("verify", directory.root)[0] == 0


def test_an_index_that_says_something_else_is_found_and_made_anew(
    directory: StoppedDirectory,
) -> None:
    """Sound in itself, but of other files: as if a backup of it had been put back."""
    other = StoppedDirectory(directory.root / "other", SEGMENT)
    fill(other)
    other.flush(bundles.l0(5), [(bundles.relation_key(1), 4, 900, bundles.record(b"x"))])
    other.index.close()
    for name in ("data.mdb", "lock.mdb"):
        (other.root / "index" / name).replace(directory.root / "index" / name)
    status, text, _ = run("verify", directory.root)
    assert status == 1
    assert "index" in text
    status, text, _ = run("reindex", directory.root)
    assert (status, text) == (0, "index made anew from 3 bundles\n")
    assert run("verify", directory.root)[0] == 0


def test_a_damaged_index_is_found_and_made_anew(directory: StoppedDirectory) -> None:
    data = directory.root / "index" / "data.mdb"
    data.write_bytes(data.read_bytes()[:4096] + bytes(3 * 4096))
    status, text, _ = run("verify", directory.root)
    assert status == 1
    assert "layertool reindex" in text
    assert run("reindex", directory.root)[0] == 0
    assert run("verify", directory.root)[0] == 0
    assert not (directory.root / "index.old").exists()


def test_reindex_of_a_damaged_directory_keeps_the_old_index(directory: StoppedDirectory) -> None:
    path = directory.layers / bundles.l0(3).text
    path.write_bytes(path.read_bytes()[:-1])
    before = (directory.root / "index" / "data.mdb").read_bytes()
    status, _, error = run("reindex", directory.root)
    assert status == 1
    assert path.name in error
    assert (directory.root / "index" / "data.mdb").read_bytes() == before


def test_dump_of_a_bundle(directory: StoppedDirectory) -> None:
    path = directory.layers / bundles.l0(2).text
    status, text, _ = run("dump", path, "--json")
    found = json.loads(text)
    assert status == 0
    assert found["header"]["file"] == path.name
    assert (found["header"]["lsn_start"], found["header"]["layers"]) == ("0/6E", 4)
    assert [layer["chunk"] for layer in found["directory"]][2:] == [
        "history:rel:1663/5/16384/main",
        "history:rel:1663/5/16385/main",
    ]
    assert sum(layer["versions"] for layer in found["directory"]) == len(found["entries"]) == 5
    assert found["entries"][2]["kind"] == "history"
    assert found["entries"][2]["description"] == "exists, 49153 blocks"
    assert len(found["frames"]) == found["header"]["frames"]
    status, text, _ = run("dump", path)
    assert status == 0
    assert "rel:1663/5/16384/main/0" in text
    assert "exists, 49153 blocks" in text


def write_segment(root: Path) -> tuple[Path, WalBuilder]:
    """A WAL segment with heap insertions, and zeros behind them."""
    wal = WalBuilder()
    for number in range(1, 500):
        main = number.to_bytes(2, "little") + b"\x08"
        wal.add(Record(HEAP, main=main, xid=700, references=[Reference(0, (1663, 5, 9), 3)]))
    path = root / "000000010000000000000001"
    path.write_bytes(wal.data.ljust(MIB, b"\0"))
    return path, wal


def test_dump_of_a_wal_segment(tmp_path: Path) -> None:
    path, wal = write_segment(tmp_path)
    status, text, _ = run("dump", path, "--json")
    rows = json.loads(text)
    assert (status, len(rows)) == (0, len(wal.placed))
    assert rows[0]["description"] == "off: 1, flags: 0x08"
    status, text, _ = run("dump", path)
    assert (status, text.splitlines()[1]) == (
        0,
        "rmgr: Heap        len (rec/tot):     49/    49, tx:        700, lsn: 0/00100060, prev "
        "0/00100028, desc: INSERT off: 2, flags: 0x08, blkref #0: rel 1663/5/9 blk 3",
    )


def test_dump_of_a_damaged_segment_shows_the_records_before(tmp_path: Path) -> None:
    path, wal = write_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[wal.placed[300][0] - wal.start + 30] ^= 1
    path.write_bytes(data)
    status, text, error = run("dump", path)
    assert (status, len(text.splitlines())) == (1, 300)
    assert "CRC-32C of the WAL record" in error


def test_dump_of_a_manifest(directory: StoppedDirectory) -> None:
    status, text, _ = run("dump", directory.root / "manifest", "--json")
    records = json.loads(text)
    assert status == 0
    assert [record["record"] for record in records[:4]] == [
        "identity", "opened", "file_added", "progress",
    ]  # fmt: skip
    assert records[3]["fields"] == {"durable_lsn": "0/64"}
    status, text, _ = run("dump", directory.root / "manifest")
    assert status == 0
    assert "durable_lsn = 0/64" in text


def test_dump_of_a_damaged_bundle_says_what_and_where(directory: StoppedDirectory) -> None:
    path = directory.layers / bundles.l0(2).text
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    status, _, error = run("dump", path)
    assert status == 1
    assert f"frame checksum at {path} offset 28" in error
