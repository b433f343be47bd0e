"""docs/format.md, docs/bucket-format.md, the golden files and the code say the same."""

import dataclasses
import importlib
import re
import shutil
import struct
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgpack
import pytest

from engine.bundle_outline import outline_of
from engine.bundle_reader import BundleReader
from engine.frame_cache import FrameCache
from engine.index_check import problems
from engine.index_rebuild import open_index
from engine.layer_map import LayerMap
from engine.manifest_log import ManifestLog
from engine.storage import Storage
from engine.version_set import VersionSet
from formats import (
    bucket,
    bucket_state,
    chunk,
    index_value,
    layer_directory,
    layer_file,
    manifest,
    manifest_record,
    outline,
    timestamp,
    version,
)
from formats.chunk import ChunkKind, Fork, Slru, SmallFile
from formats.file_name import FileKind
from formats.index_value import Cut, RelationState
from formats.layer_file import Codec, Footer, FrameKind, LayerKind
from tests.fixtures import bundles, golden_format
from tests.fixtures.golden_format import EXAMPLES, GOLDEN, LSN, NAME, REL
from tests.fixtures.stopped_directory import base_backup, flushes

TEXT = golden_format.text()
LAYOUTS = golden_format.layouts()

# What each layout is in the code: a struct format, and the value of each field in a sample.
STRUCTS = {
    "chunk key": ">BIIIBI",
    "bundle header": "<8sHBBIIII",
    "frame header": "<BBHIIII",
    "bundle trailer": "<II8s",
    "record version": "<BBBBBBHII",
    "manifest header": "<8sII",
    "manifest entry": "<III",
    "bucket header": "<8sII",
    "outlines header": "<8sIII",
    "outline": "<II",
    "journal sum": "<III",
    "index value": "<II",
    "layer entry": "<QQ13sBHHIIIQI",
    "file entry": "<QQQQIIIB",
    "relation state": "<QIB",
    "cut": "<QIB",
    "index state": "<IQQ",
}


def rows(marker: str) -> list[list[str]]:
    """The cells of the table behind a comment in the document."""
    table = re.search(rf"<!-- {marker} -->\n\|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT)
    assert table is not None, marker
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table[1].splitlines()]


def fields_of(name: str, data: bytes) -> dict[str, int]:
    """A sample taken apart as the document says."""
    order = "big" if name == "chunk key" else "little"
    return {
        field: int.from_bytes(data[offset : offset + size], order)  # type: ignore[arg-type]
        for offset, size, field in LAYOUTS[name]
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_what_the_code_writes(name: str) -> None:
    text = golden_format.make_texts()[name]
    assert (GOLDEN / f"{name}.txt").read_text() == text
    example = golden_format.fence(name).search(TEXT)
    assert example is not None
    assert example[0] == text


def test_examples_are_read(tmp_path: Path) -> None:
    """The golden hex as files: the code opens them and finds what was written."""
    texts = {name: (GOLDEN / f"{name}.txt").read_text() for name in EXAMPLES}
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / NAME.text).write_bytes(golden_format.bytes_of(texts["bundle"]))
    (tmp_path / "manifest").write_bytes(golden_format.bytes_of(texts["manifest"]))
    storage = Storage()
    state = ManifestLog.open(storage, tmp_path / "manifest").state
    assert (state.run, state.serial, state.durable_lsn) == (3, 3, LSN + 0x80)
    index = open_index(storage, tmp_path / "index", state, tmp_path / "layers")
    layers = LayerMap(storage, tmp_path / "layers", index, FrameCache(1 << 20))
    into = VersionSet()
    assert layers.collect(REL.pack(), 0, LSN + 0x80, 0, into)
    found = bundles.pushed(into)
    assert [lsn for lsn, _ in found] == [LSN + 0x80, LSN]
    record = fields_of("record version", found[0][1])
    assert record == {
        "kind": version.RECORD, "rmgr": 10, "info": 0, "block id": 0, "references": 1, "flags": 0,
        "data length": 4, "xid": 741, "main length": 3,
    }  # fmt: skip
    assert index.relation(REL.pack()) == RelationState(LSN, 1, True, (Cut(LSN - 1, 0, True),))
    index.close()


def test_the_example_of_retention_follows_that_of_the_manifest(tmp_path: Path) -> None:
    texts = {name: (GOLDEN / f"{name}.txt").read_text() for name in ("manifest", "retention")}
    (tmp_path / "manifest").write_bytes(b"".join(map(golden_format.bytes_of, texts.values())))
    state = ManifestLog.open(Storage(), tmp_path / "manifest").state
    assert state.serial == 4
    assert state.removed == {NAME: b"\1"}
    assert [(point.name, point.lsn) for point in state.points.values()] == [("release", LSN)]
    assert state.leases["backup"] == manifest_record.LeaseSet("backup", LSN + 0x80, 1_800_000_000)


def test_the_examples_of_the_bucket_are_read(tmp_path: Path) -> None:
    golden_format.make_directory(tmp_path)
    _, before, after = golden_format.make_chain(tmp_path)
    entry, snapshot = (
        golden_format.bytes_of((GOLDEN / f"{name}.txt").read_text())
        for name in ("entry", "snapshot")
    )
    assert bucket_state.unpack_chain_entry(entry, before, "entry") == after
    assert bucket_state.unpack_snapshot(snapshot, 2, "snapshot") == after
    outlines = golden_format.bytes_of((GOLDEN / "outlines.txt").read_text())
    known = outline_of(BundleReader(Storage(), tmp_path / "layers" / NAME.text))
    assert outline.unpack_outlines(outlines, "outlines") == {NAME: known}
    names = [bucket.entry_name(2), bucket.snapshot_name(2), *after.objects()]
    names.append(bucket.outlines_name(1, 1))
    assert [row[1].strip("`") for row in rows("objects")] == names
    assert after.manifest.serial == after.local_serial == 3
    assert after.remote_lsn == after.journal[0].lsn_end > after.manifest.durable_lsn


@pytest.mark.parametrize("name", sorted(LAYOUTS.keys() & STRUCTS.keys()))
def test_layouts_have_no_gaps_and_the_sizes_of_the_code(name: str) -> None:
    pos = 0
    for offset, size, field in LAYOUTS[name]:
        assert offset == pos, field
        pos += size
    codes = re.findall(r"\d*[a-zA-Z]", STRUCTS[name])
    assert [size for _, size, _ in LAYOUTS[name]] == [struct.calcsize("<" + c) for c in codes]


def test_every_layout_is_compared_with_the_code() -> None:
    assert LAYOUTS.keys() == STRUCTS.keys() | {"frame", "directory", "table"}
    for module, name, layout in (
        (chunk, "_KEY", "chunk key"), (version, "RECORD_HEADER_SIZE", "record version"),
        (layer_file, "_HEADER", "bundle header"), (layer_file, "_FRAME", "frame header"),
        (layer_file, "_TRAILER", "bundle trailer"), (manifest, "_HEADER", "manifest header"),
        (manifest, "_HEAD", "manifest entry"), (bucket_state, "_HEADER", "bucket header"),
        (outline, "_HEADER", "outlines header"), (outline, "_HEAD", "outline"),
        (index_value, "_SEAL", "index value"),
        (index_value, "_ENTRY", "layer entry"), (index_value, "_FILE", "file entry"),
        (index_value, "_RELATION", "relation state"), (index_value, "_CUT", "cut"),
        (index_value, "_STATE", "index state"),
    ):  # fmt: skip
        code = getattr(module, name)
        if isinstance(code, int):
            assert struct.calcsize(STRUCTS[layout]) == code
        else:  # headers that end with a CRC have it apart
            assert STRUCTS[layout] in (code.format, code.format + "I")


def test_fields_are_where_the_document_says() -> None:
    """Field by field, samples with a different value in each."""
    key = chunk.ChunkKey(1, 2, 3, 4, 5, 6)
    assert list(fields_of("chunk key", key.pack()).items()) == list(key._asdict().items())
    header = fields_of("bundle header", layer_file.pack_header(NAME._replace(epoch=7)))
    assert header["CRC"] == layer_file.identity_of(NAME._replace(epoch=7))
    assert (header["kind"], header["epoch"], header["run"], header["sequence"]) == (1, 7, 3, 42)
    head, stored = layer_file.seal(
        FrameKind.TABLE, 9, bytes(5000), header["CRC"], layer_file.compressor(FileKind.L0)
    )
    frame = fields_of("frame header", head)
    assert (frame["kind"], frame["codec"], frame["number"]) == (FrameKind.TABLE, Codec.ZSTD, 9)
    assert (frame["raw length"], frame["stored length"]) == (5000, len(stored))
    bundle = NAME.pack()
    entry = index_value.LayerEntry(11, 12, NAME, 3, 16384 + 5, 16384 + 7, 14, 15, 16, 17, 18)
    sealed = index_value.pack_layers(index_value.stripe_key(REL.pack(), 1), [entry])
    assert fields_of("index value", sealed)["count"] == 1
    assert fields_of("layer entry", sealed[8:]) == {
        "lsn_start": 11, "lsn_end": 12, "bundle": int.from_bytes(bundle, "little"), "kind": 3,
        "first block": 5, "last block": 6, "number": 14, "frame_start": 15, "frame_end": 16,
        "bytes_stored": 17, "versions": 18,
    }  # fmt: skip
    file = index_value.FileEntry(1, 2, 3, 4, 5, 6, 7, 8)
    found = fields_of("file entry", index_value.pack_file(bundle, file)[8:])
    assert list(found.values()) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert list(found) == list(file._fields)
    cut = index_value.Cut(21, 22, True)
    relation = index_value.pack_relation(b"", RelationState(31, 32, False, (cut,)))[8:]
    assert list(fields_of("relation state", relation).values()) == [31, 32, 0]
    assert list(fields_of("cut", relation[13:]).values()) == [21, 22, 1]
    state = index_value.pack_state(index_value.IndexState(2, 41, 42))[8:]
    assert list(fields_of("index state", state).values()) == [2, 41, 42]


def test_columns() -> None:
    for name, code in (
        ("directory", layer_directory.DIRECTORY_COLUMNS),
        ("table", layer_directory.TABLE_COLUMNS),
    ):
        assert [(column, size) for _, size, column in LAYOUTS[name]] == list(code)


def test_limits() -> None:
    for name, value, _ in rows("limits"):
        module, _, constant = name.strip("`").rpartition(".")
        assert getattr(importlib.import_module(module), constant) == int(value), name


def test_kinds_and_names() -> None:
    kinds = {name: int(value) for name, value, _ in rows("kinds: version")}
    assert kinds == {name: getattr(version, name) for name in kinds}
    assert len(kinds) == 9
    places: dict[str, Sequence[tuple[int, str]]] = {
        "layout: frame header": [(k, k.name.lower()) for k in FrameKind][1:],
        "layout: bundle header": [(k, k.name.lower()) for k in FileKind],
        "columns: directory": [(k, k.name.lower().replace("_", " ")) for k in LayerKind],
        "layout: chunk key": [
            *((k, k.name.lower().replace("_", " ") if k != 3 else "commit_ts") for k in Slru),
            *((k, k.name.lower()) for k in Fork),
            *((k, chunk.FILE_NAMES[k]) for k in SmallFile),
            (ChunkKind.TIME, "commit times"),
        ],
    }
    for place, words in places.items():
        said = " ".join(" ".join(row) for row in rows(place)).replace("layer ", "")
        for value, word in words:
            short = word.removeprefix("multixact ") if word == "multixact offsets" else word
            assert re.search(rf"{value} (multixact )?{re.escape(short)}\b", said) or (
                word == "table" and "3 frame table" in said
            ), (place, word)


def test_a_commit_time() -> None:
    example = re.search(r"A commit that began (0x\w+) .*, at (.*): `([0-9a-f ]+)`", TEXT)
    assert example is not None
    time = timestamp.from_datetime(datetime.fromisoformat(example[2]))
    assert version.commit_time(int(example[1], 16), time).hex(" ") == example[3]


def test_footer_fields_and_manifest_records() -> None:
    assert [row[0] for row in rows("fields: footer")] == list(Footer._fields)
    for place, kinds in (
        ("records", manifest_record.RECORDS), ("records: bucket", bucket.OWN_RECORDS),
        ("records: snapshot", bucket.SNAPSHOT_RECORDS),
    ):  # fmt: skip
        assert {name: fields.split(", ") for name, fields, _ in rows(place)} == {
            tag: [field.name for field in dataclasses.fields(record)]
            for tag, record in kinds.items()
        }
    body = golden_format.bytes_of((GOLDEN / "bundle.txt").read_text())
    at = body.index(b"\x8d\xa4kind")
    assert list(msgpack.unpackb(body[at:-16])) == list(Footer._fields)


def test_databases() -> None:
    assert [row[0].encode() for row in rows("databases")] == list(index_value.DATABASES)


def test_versions() -> None:
    said = re.findall(r"^\| (bundle|manifest|bucket|index) \| .* \| (\d+)", TEXT, re.MULTILINE)
    assert [(name, int(number)) for name, number in said] == [
        ("bundle", layer_file.FORMAT_VERSION),
        ("manifest", manifest.FORMAT_VERSION),
        ("bucket", bucket_state.FORMAT_VERSION),
        ("index", index_value.FORMAT_VERSION),
    ]


def test_a_directory_of_version_1_is_read(tmp_path: Path) -> None:
    """Kept as it was written, compressed frames and all: read for ever."""
    shutil.copytree(golden_format.OLD_VERSION, tmp_path, dirs_exist_ok=True)
    storage = Storage()
    state = ManifestLog.open(storage, tmp_path / "manifest").state
    index = open_index(storage, tmp_path / "index", state, tmp_path / "layers")
    layers = LayerMap(storage, tmp_path / "layers", index, FrameCache(0))
    model = bundles.Model(base_backup())
    for versions in flushes():
        model.add(versions)
    for key, block in model.blocks:
        into = VersionSet()
        layers.collect(key, block, state.durable_lsn, 0, into)
        assert bundles.pushed(into) == model.read(key, block, state.durable_lsn, 0)[0]
    index.close()
    assert list(problems(tmp_path / "index")) == []
