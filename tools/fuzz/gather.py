"""Seeds of the corpus from real servers.

    python -m tools.fuzz.gather tests/fixtures/*.sql

runs each load on a server of each major version and keeps, of the WAL that it writes, one case of
each kind: of every (resource manager, opcode, block id) the page before the record and the part
of the record; of every record its bytes; of every way to compress an image one; and stretches of
WAL as it is streamed. What needs no server is made by tools/fuzz/made_seeds.py.
"""

import contextlib
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from engine.chunk_table import ChunkTable
from engine.cluster_records import ClusterRecords
from engine.errors import RequestError
from engine.ingest import Ingest
from engine.record_batch import RecordBatch
from engine.version_set import VersionSet
from engine.version_store import VersionStore
from engine.wal_ingest import WalIngest, decompress_image
from engine.wal_reader import WalReader
from formats import rmgr
from formats.chunk import BLOCK_BYTES
from formats.lsn import parse as parse_lsn
from formats.version import EFFECT, RECORD
from tools.fuzz import corpus, made_seeds
from tools.postgres import Workspace

MAJORS = (14, 15, 16, 17, 18)
SEGMENT_BYTES = 16 << 20
PAGE_BYTES = 8192
SWITCH = (0, 0x40)
STEP_BYTES = 1 << 20
STREAM_SEEDS = 10
IMAGE_SEEDS = 4
SETTINGS = {
    "wal_keep_size": "4GB",
    "max_wal_size": "4GB",
    "autovacuum": "off",
    "wal_level": "logical",
    "track_commit_timestamp": "on",
    "max_prepared_transactions": "10",
}
COMPRESSIONS = {15: ("off", "pglz", "lz4", "zstd")}
Seeds = dict[str, dict[str, bytes]]


class Gatherer:
    """Reads one server's WAL from a checkpoint on; `seeds` are target -> name -> input."""

    def __init__(self, start_lsn: int, major: int, seeds: Seeds) -> None:
        self.major = major
        self.seeds = seeds
        self.table = ChunkTable()
        self.ingest = Ingest(self.table, decompress_image)
        self.store = VersionStore(self.table, self.ingest, 2 << 30)
        self.store.major = major
        cluster = ClusterRecords(self.table, self.ingest, major)
        arguments = {"version": major, "zeros_end": True}
        self.reader = WalReader(start_lsn, SEGMENT_BYTES, **arguments)
        self.wal = WalIngest(
            self.store, self.ingest, cluster, WalReader(start_lsn, SEGMENT_BYTES, **arguments),
            lambda source, target, lsn: None,
        )  # fmt: skip
        self.batch = RecordBatch(4096, 16384)
        self.versions = VersionSet()
        self.starts: list[int] = []
        self.switches: list[int] = []

    def feed(self, lsn: int, data: bytes) -> None:
        self.wal.consume(lsn, data)
        self.reader.feed(lsn, memoryview(data))
        while count := self.reader.decode(self.batch, 4096):
            for record in range(count):
                self._record(record)

    def _keep(self, target: str, name: str, content: bytes) -> None:
        """The smallest of each name."""
        kept = self.seeds.setdefault(target, {})
        if name not in kept or len(content) < len(kept[name]):
            kept[name] = content

    def _record(self, record: int) -> None:
        batch = self.batch
        self.starts.append(batch.lsn_start[record])
        if (batch.rmgr[record], batch.info[record] & 0xF0) == SWITCH:
            self.switches.append(batch.lsn_start[record])
        pos, length = batch.record_pos[record], batch.record_length[record]
        kind = rmgr.show(self.major, batch.rmgr[record], batch.info[record] & 0xF0)
        references = range(batch.first_reference[record], batch.first_reference[record + 1])
        images = sum(batch.ref_flags[r] >> 4 & 1 for r in references)
        if length < 1 << 15:
            content = bytes([self.major, 1]) + bytes(batch.data[pos : pos + length])
            shape = f"{kind} {len(references)} references, {images} images"
            shape += f" info {batch.info[record] & 0x0F if batch.rmgr[record] != 1 else 0:x}"
            self._keep("wal-record", f"{self._age(kind)} {shape}", content)
        for r in references:
            self._reference(kind, record, r)

    def _age(self, kind: str) -> str:
        """Versions whose records differ, as a name's beginning: not each is kept five times."""
        newest = 17 if self.major >= 17 else 15
        return f"{self.major if self.major == 14 else newest}"

    def _reference(self, kind: str, record: int, r: int) -> None:
        batch = self.batch
        if batch.ref_flags[r] & 0x10:
            self._image(r)
        if batch.ref_flags[r] & 0x10 and batch.ref_image_info[r] & 2:
            return
        name = f"{self._age(kind)} {kind} block {batch.ref_id[r]} flags {batch.ref_flags[r]:02x}"
        if name in self.seeds.get("redo", {}):
            return
        block, lsn = batch.ref_block[r], batch.lsn_end[record]
        chunk = self.table.find(
            1, batch.ref_spc[r], batch.ref_db[r], batch.ref_rel[r], batch.ref_flags[r] & 15,
            block >> 17,
        )  # fmt: skip
        page = bytearray(BLOCK_BYTES)
        with contextlib.suppress(RequestError):
            self.store.read_blocks([(chunk, block & 0x1FFFF, lsn - 1)], memoryview(page),
                                   BLOCK_BYTES)  # fmt: skip
        self.versions.reset()
        memtable = self.ingest.target.memtable
        memtable.collect(chunk, block & 0x1FFFF, lsn - 1, lsn, self.versions)
        if self.versions.count != 1:
            return
        payload = self.versions.payload(1)
        if payload[0] in (RECORD, EFFECT) and len(payload) < 1 << 15:
            head = struct.pack("<BBQ", self.major, 0, lsn)
            self._keep("redo", name, head + page + payload)

    def _image(self, r: int) -> None:
        batch = self.batch
        info = batch.ref_image_info[r]
        codec = info & 28
        pos, length = batch.ref_image_pos[r], batch.ref_image_length[r]
        hole_offset, hole_length = batch.ref_hole_offset[r], batch.ref_hole_length[r]
        head = struct.pack("<BBHH", codec, 0, hole_offset, hole_length)
        name = f"{self.major if codec else 0} codec {codec} of {length // 1024} KiB"
        self._keep("image", name, head + bytes(batch.data[pos : pos + length]))


def segments(directory: Path, start_lsn: int) -> Iterator[tuple[int, bytes]]:
    """(LSN, bytes) of the WAL files of a directory from the one with `start_lsn` on."""
    for path in sorted(p for p in directory.iterdir() if len(p.name) == 24):
        lsn = (int(path.name[8:16], 16) << 32) + int(path.name[16:24], 16) * SEGMENT_BYTES
        if lsn + SEGMENT_BYTES > start_lsn:
            yield lsn, path.read_bytes()


def stream_seeds(
    major: int, wal: list[tuple[int, bytes]], gatherer: Gatherer, seeds: Seeds
) -> None:
    """Stretches of a page and a bit: from a segment's start, from records near its end, from
    switches, from anywhere."""
    choice = random.Random(major)
    kept = seeds.setdefault("wal-stream", {})
    known = sorted(gatherer.starts)
    stream = b"".join(data for _, data in wal)
    base = wal[0][0]
    places = {lsn: "segment" for lsn, _ in wal[:2] if lsn + PAGE_BYTES < known[-1]}
    for lsn, _ in wal[1:3]:
        before = [start for start in known if lsn - PAGE_BYTES <= start < lsn]
        places.update({start: "end" for start in before[-40::20]})
    places.update({start: "record" for start in choice.sample(known, STREAM_SEEDS)})
    places.update({start: "switch" for start in gatherer.switches[-1:]})
    for number, (lsn, name) in enumerate(sorted(places.items())):
        content = stream[lsn - base : lsn - base + PAGE_BYTES - lsn % PAGE_BYTES + choice.randrange(
            2000, 10000)]  # fmt: skip
        head = struct.pack("<BBQI", major, 0, lsn, choice.randrange(1 << 32))
        kept[f"{major} {name} {number}"] = head + content


def gather(workspace: Workspace, major: int, loads: list[Path], seeds: Seeds) -> None:
    """One server of this major for each way to compress images; the last one runs all loads."""
    ways = COMPRESSIONS.get(major, ("on",))
    for way in ways:
        server = workspace.cluster(major, {**SETTINGS, "wal_compression": way}).start()
        server.sql("checkpoint")
        ((start,),) = server.sql("select redo_lsn::text from pg_control_checkpoint()")
        for load in loads if way == ways[0] else loads[:1]:
            server.sql(f'create database "{load.stem}" template template0')
            server.sql("checkpoint")
            server.psql(load.read_text(encoding="utf-8"), load.stem)
        server.sql("select pg_switch_wal()")
        server.sql("create table after_the_switch ()")
        server.stop()
        wal = list(segments(server.data_dir / "pg_wal", parse_lsn(start)))
        gatherer = Gatherer(parse_lsn(start), major, seeds)
        for lsn, data in wal:
            for skip in range(max(0, parse_lsn(start) - lsn), len(data), STEP_BYTES):
                if not gatherer.reader.at_end:
                    gatherer.feed(lsn + skip, data[skip : skip + STEP_BYTES])
        stream_seeds(major, wal, gatherer, seeds)
        control = (server.data_dir / "global" / "pg_control").read_bytes()
        seeds.setdefault("metadata", {})[f"{major} pg_control"] = b"control\0" + control


def main(arguments: list[str]) -> int:
    seeds: Seeds = {}
    with Workspace() as workspace:
        for major in MAJORS:
            gather(workspace, major, [Path(argument) for argument in arguments], seeds)
            print(f"{major}: {', '.join(f'{len(v)} {k}' for k, v in seeds.items())}", flush=True)
    made_seeds.add(seeds)
    for target, content in seeds.items():
        print(f"{target:12} {len(content):6} seeds {corpus.write_seeds(target, content):8} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
