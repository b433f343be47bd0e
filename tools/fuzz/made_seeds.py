"""Seeds that need no server: page requests, messages, the parts of a bundle, metadata."""

import io
import random
import struct
import tarfile
import tempfile
from pathlib import Path

from engine.bundle_reader import BundleReader
from engine.bundle_writer import BundleWriter, Version, run_of
from engine.storage import Storage
from formats import (
    chunk,
    index_value,
    journal_sums,
    layer_file,
    manifest,
    manifest_record,
    pagestream,
    pgwire,
)
from formats.file_name import FileKind, FileName
from formats.version import EFFECT, HISTORY, IMAGE_FUZZY, IMAGE_WAL, RECORD, effect

LSN = 0x2000000
STREAM_HEAD = 14  # of an input of wal-stream, before the WAL
Seeds = dict[str, dict[str, bytes]]


def add(seeds: Seeds) -> None:
    seeds["protocol"] = {**page_streams(), **sessions()}
    seeds["redo"].update(effects())
    seeds["layer"] = bundle_parts()
    seeds.setdefault("metadata", {}).update(
        metadata(
            {
                f"tail {name}": content[STREAM_HEAD:]
                for name, content in seeds["wal-stream"].items()
                if name.endswith(" segment 0")
            }
        )
    )


def effects() -> dict[str, bytes]:
    """An effect of each class, on a page of a random map or SLRU."""
    page = random.Random(1).randbytes(8192)
    head = struct.pack("<BBQ", 18, 0, LSN)
    items = [(n, 3 - n % 3, 700 + n) for n in (0, 1, 5, 300, 399)]
    return {f"18 effect {kind}": head + page + effect(kind, items) for kind in range(1, 7)}


def frame(tag: int, number: int, lsn: int, since: int, body: bytes) -> bytes:
    return pgwire.copy_data(pagestream.request(tag, number, lsn, since, body))


def page_streams() -> dict[str, bytes]:
    """One request of each kind, many of one kind, mixed, and each refusal."""
    head = b"\0" + struct.pack("<QQQ", LSN, LSN + 64, LSN - 4096)
    relation = pagestream.relation_body(1663, 5, 16384, 0)
    bodies = {
        0: relation,
        1: relation,
        2: pagestream.page_body(1663, 5, 16384, 0, 7),
        3: pagestream.database_body(5),
        4: pagestream.slru_body(0, 1),
    }
    latest = pagestream.LATEST_LSN
    one = {
        f"request {tag}": head + frame(tag, tag, LSN, LSN - 8, body) for tag, body in bodies.items()
    }
    pages = b"".join(frame(2, n, latest, LSN - n, bodies[2]) for n in range(24))
    mixed = b"".join(frame(tag, tag, latest, LSN, bodies[tag]) for tag in (2, 2, 0, 2, 4, 3, 1, 2))
    refusals = [(0, 0), (LSN - 8, LSN), (LSN - 8192, LSN - 8192), (latest, LSN + 32)]
    refused = b"".join(frame(2, 1, request, since, bodies[2]) for request, since in refusals)
    fork = frame(2, 1, LSN, LSN, pagestream.page_body(1663, 5, 16384, 9, 7))
    return {
        **one,
        "pages": head + pages,
        "mixed": head + mixed,
        "refused": head + refused + fork,
        "a control message": head + pages[:94] + pgwire.copy_done(),
    }


def sessions() -> dict[str, bytes]:
    """Startup packets, and messages of both sides."""
    startup, session = b"\1" + bytes(24), b"\2" + bytes(24)
    messages = {
        "query": pgwire.query("get_page 1663 5 16384 main 0 0/2000000"),
        "copy": pgwire.copy_data(b"data") + pgwire.message(b"f", b"failed\0") + pgwire.copy_done(),
        "rows": pgwire.row_description([("page", pgwire.BYTEA_OID), ("lsn", pgwire.TEXT_OID)])
        + pgwire.data_row([pgwire.bytea(b"content"), None, b""])
        + pgwire.command_complete("SELECT 1")
        + pgwire.ready_for_query(),
        "error": pgwire.error_response("text", pgwire.SYNTAX_ERROR, hint="hint"),
        "bytea": pgwire.message(b"B", pgwire.bytea(b"content")),
    }
    packets = {
        "startup": pgwire.startup_packet({"user": "u", "database": "d", "options": "-c a=b"}),
        "cancel": pgwire.cancel_packet(7, 8),
        "encryption": struct.pack(">II", 8, pgwire.SSL_REQUEST),
    }
    return {
        **{name: startup + packet for name, packet in packets.items()},
        **{name: session + message for name, message in messages.items()},
    }


def bundle_parts() -> dict[str, bytes]:
    """Frames, directories and frame tables of bundles with few and with many layers."""
    parts = {}
    for number, (layers, blocks, frame_bytes) in enumerate(
        [(1, 1, 64), (3, 4, 512), (20, 3, 2000)]
    ):
        name = FileName(FileKind.L0, 0, 1, number + 1)
        with tempfile.TemporaryDirectory() as directory:
            writer = BundleWriter(Storage(), Path(directory), name, "1" * 32, "2" * 32, 180006,
                                  frame_bytes)  # fmt: skip
            writer.add_run(run_of(versions(layers, blocks)))
            writer.finish()
            reader = BundleReader(Storage(), Path(directory, name.text))
            frames = [reader.read_frame(i) for i in range(reader.footer.frames)]
            parts[f"{layers} layers: directory"] = b"\1\0\0\0" + bytes(reader.directory.raw)
            parts[f"{layers} layers: table"] = b"\2\0\0\0" + bytes(reader.table.raw)
        for i, frame_ in enumerate(frames[:4]):
            parts[f"{layers} layers: frame {i}"] = bytes(4) + frame_
    return parts


def versions(layers: int, blocks: int) -> list[Version]:
    """Some of each kind, of several blocks of each layer."""
    choice = random.Random(layers)
    kinds = (RECORD, RECORD, EFFECT, IMAGE_WAL, IMAGE_FUZZY, HISTORY)
    return [
        (
            chunk.relation(1663, 5, 16384 + layer, 0, 0).pack(),
            block << choice.choice((0, 3)),
            0x2000000 + 64 * number,
            bytes([choice.choice(kinds), 10, 0, 0, 0, 0]) + choice.randbytes(choice.randrange(60)),
        )
        for layer in range(layers)
        for block in range(blocks)
        for number in range(1, 4)
    ]


def metadata(segment_starts: dict[str, bytes]) -> dict[str, bytes]:
    """One of each format of tools/fuzz/metadata_target.py."""
    name = FileName(FileKind.L0, 0, 1, 1)
    identity = layer_file.identity_of(name)
    footer = layer_file.Footer(
        "l0", "1" * 32, "2" * 32, 180006, LSN, LSN + 8, 3, 4, 50, 32, 9, 41, 7
    )
    ends = layer_file.pack_footer(footer, identity)
    body, crc = ends[: -layer_file.TRAILER_BYTES], ends[-12:-8]
    codec = layer_file.compressor(FileKind.L0)
    frames = {
        how: b"".join(layer_file.seal(layer_file.FrameKind.VERSIONS, 0, raw, identity, codec))
        for how, raw in (("plain", b"raw bytes"), ("zstd", b"page " * 500))
    }
    sums = journal_sums.MAGIC + b"".join(journal_sums.Sum(n << 12, n).pack() for n in range(1, 9))
    texts = (
        name.text, "rel:1663/5/16384/main/0", "base/5/pg_filenode.map", "rel:1663/5/*", "0/2000000",
        "00000002.history", "slru:xact/0001", "file:5/1/PG_VERSION", "pg_twophase/000002F0",
    )  # fmt: skip
    commit = struct.pack("<qIIIiII", 7, 1 | 2 | 4 | 32, 5, 1663, 2, 800, 801)
    commit += struct.pack("<iIII", 1, 1663, 5, 16384) + struct.pack("<Qq", LSN, 8)
    return {
        "footer": b"footer\0" + crc + body,
        "bundle ends": b"bundle ends\0" + layer_file.pack_header(name) + ends,
        **{f"frame {how}": b"frame\0" + frame_ for how, frame_ in frames.items()},
        "manifest": b"manifest\0" + a_manifest(),
        **{f"index {kind}": b"index\0" + value for kind, value in index_values().items()},
        "tar": b"tar\0\1" + an_archive(),
        "sums": b"sums\0" + sums,
        **{name: b"tail\0" + wal for name, wal in segment_starts.items()},
        "history": b"history\0" + b"1\t0/3000000\tno recovery target\n2\t0/4000000\twhy\n",
        **{f"name {n}": b"name\0" + bytes([n % 6]) + text.encode() for n, text in enumerate(texts)},
        **{
            f"commit {major}": b"transaction\0" + bytes([major - 14]) + commit for major in (15, 18)
        },
    }


def a_manifest() -> bytes:
    """Two entries with records of each kind."""
    name = FileName(FileKind.L0, 0, 1, 1).text
    first: list[manifest_record.Record] = [
        manifest_record.Identity("1" * 32, "2" * 32, 7, 180006, 16 << 20),
        manifest_record.Opened(1),
    ]
    second: list[manifest_record.Record] = [
        manifest_record.FileAdded(name, 1000, LSN, LSN + 8, 77),
        manifest_record.Progress(LSN + 8, LSN, LSN, LSN),
        manifest_record.TimelineSwitch(2, LSN + 8),
        manifest_record.LayersRemoved(name, b"\x05"),
        manifest_record.PointSet("point", LSN),
        manifest_record.LeaseSet("lease", LSN, 1_800_000_000),
    ]
    data = manifest.pack_header()
    crc = manifest.check_header(data, "")
    third: list[manifest_record.Record] = [
        manifest_record.PointDropped("point"),
        manifest_record.LeaseDropped("lease"),
        manifest_record.FileRemoved(name),
    ]
    for serial, records in enumerate((first, second, third), 1):
        entry, crc = manifest.pack_entry(serial, records, crc)
        data += entry
    return data


def index_values() -> dict[str, bytes]:
    """A value of each database, behind its kind and its key."""
    name = FileName(FileKind.L0, 0, 1, 1)
    key = index_value.stripe_key(chunk.relation(1663, 5, 16384, 0).pack(), 0)
    entry = index_value.LayerEntry(LSN, LSN + 8, name, 1, 0, 7, 1, 0, 3, 4096, 20)
    cuts = (index_value.Cut(LSN, 0, True),)
    values = {
        "layers": index_value.pack_layers(key, [entry, entry]),
        "files": index_value.pack_file(key, index_value.FileEntry(9, 9, LSN, LSN + 8, 7, 1)),
        "chunks": index_value.pack_stripes(key, 5),
        "relations": index_value.pack_relation(key, index_value.RelationState(LSN, 7, True, cuts)),
        "state": index_value.pack_state(index_value.IndexState(1, 2, LSN)),
        "sum": index_value.pack_sum(index_value.LAYERS, 1, 2),
    }
    return {name: bytes([i]) + key + value for i, (name, value) in enumerate(values.items())}


def an_archive() -> bytes:
    """A tar archive of a directory, a file and an empty one."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in (("base/5/PG_VERSION", b"18\n"), ("empty", b""), ("x", b"y" * 700)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()
