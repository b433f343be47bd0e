"""Versions -> bundle file: what a memtable flush and a base backup write.

Runs and pages are encoded into raw frames by a kernel (formats/frame_encoder.py), many a call; here
they are compressed, as many a call, checksummed and appended. Nothing is known of a bundle before
`finish`: until the manifest names the file it is a leftover that the next start removes.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from engine.storage import Bytes, Storage
from formats import layer_file
from formats.chunk import BLOCK_BYTES
from formats.file_name import FileKind, FileName
from formats.frame_encoder import FrameEncoder
from formats.layer_directory import DIRECTORY_COLUMNS
from formats.layer_file import Footer, FrameKind, LayerKind

FRAME_BYTES = 32 * 1024  # docs/format.md, "Why so", has the measurement
BATCH_BYTES = 1 << 20  # raw, encoded in one call
APPEND_BYTES = 1 << 20  # collected before a write

Version = tuple[bytes, int, int, bytes]  # packed chunk key, block, LSN, payload


class Run(Protocol):
    """A sorted set of versions, in columns; see VersionRun for what each is."""

    @property
    def chunk(self) -> memoryview: ...

    @property
    def block(self) -> memoryview: ...

    @property
    def lsn(self) -> memoryview: ...

    @property
    def offset(self) -> memoryview: ...

    @property
    def length(self) -> memoryview: ...

    @property
    def data(self) -> Bytes: ...

    @property
    def order(self) -> memoryview: ...

    @property
    def keys(self) -> Sequence[bytes]: ...


class VersionRun(NamedTuple):
    """A Run made in Python, for the few versions that are not ingested from WAL."""

    chunk: memoryview  # u32: index into keys
    block: memoryview  # u32
    lsn: memoryview  # u64
    offset: memoryview  # u32: of the payload in data
    length: memoryview  # u32
    data: Bytes
    order: memoryview  # u32: numbers of the versions by (chunk key, block, LSN)
    keys: Sequence[bytes]


def run_of(versions: Iterable[Version]) -> VersionRun:
    """A run of versions in any order; of equal (chunk, block, LSN) the later one wins."""
    items = list(versions)
    keys = sorted({item[0] for item in items})
    number = {key: i for i, key in enumerate(keys)}
    offsets, used = [], 0
    for item in items:
        offsets.append(used)
        used += len(item[3])
    order = sorted(range(len(items)), key=lambda i: items[i][:3])
    return VersionRun(
        memoryview(array("I", [number[item[0]] for item in items])),
        memoryview(array("I", [item[1] for item in items])),
        memoryview(array("Q", [item[2] for item in items])),
        memoryview(array("I", offsets)),
        memoryview(array("I", [len(item[3]) for item in items])),
        b"".join(item[3] for item in items),
        memoryview(array("I", order)),
        keys,
    )


class BundleInfo(NamedTuple):
    """A finished bundle: what the manifest, the index and the layer map are told."""

    name: FileName
    bytes_total: int
    footer_crc: int
    footer: Footer
    directory_frame: bytes  # the layer directory as it stands in the file


def layer_kinds(file_kind: FileKind, fuzzy: list[int]) -> list[LayerKind]:
    """The kinds of a bundle's layers; `fuzzy` says of each whether it has fuzzy images."""
    if file_kind != FileKind.IMAGE:
        return [LayerKind.DELTA] * len(fuzzy)
    return [LayerKind.FUZZY_IMAGE if is_fuzzy else LayerKind.IMAGE for is_fuzzy in fuzzy]


class BundleWriter:
    """Writes one bundle; used by one thread."""

    def __init__(
        self,
        storage: Storage,
        directory: Path,
        name: FileName,
        tenant: str,
        timeline: str,
        postgres_version: int,
        frame_bytes: int = FRAME_BYTES,
        require_room: Callable[[int], None] = lambda length: None,
    ) -> None:
        """`require_room` is asked before each write of so many bytes, and raises to refuse it."""
        require_room(APPEND_BYTES)
        self.name = name
        self._storage = storage
        self._require_room = require_room
        self._directory = directory
        self._ids = (tenant, timeline, postgres_version)
        self._encoder = FrameEncoder(frame_bytes, BATCH_BYTES)
        self._codec = layer_file.compressor(name.kind)
        self._identity = layer_file.identity_of(name)
        self._chunk_numbers: dict[bytes, int] = {}
        self._run_keys: Sequence[bytes] | None = None
        self._run_numbers = array("I")
        self._frames = 0
        self._table = {column: array(code) for column, code in _TABLE_CODES}
        self._file = storage.create(directory / name.text)
        self._parts: list[Bytes] = [layer_file.pack_header(name)]
        self._waiting = layer_file.HEADER_BYTES
        self._offset = layer_file.HEADER_BYTES

    def add_run(self, run: Run) -> None:
        """All versions of a run; each (chunk, block, LSN) once, the last in order wins.

        A run may go on with the stripe with which the one before it, or add_pages, ended. Many runs
        that share one list of keys, which must not change, cost what one does.
        """
        encoder = self._encoder
        if run.keys is not self._run_keys:
            self._run_numbers = array("I", map(self._chunk_number, run.keys))
            self._run_keys = run.keys
        encoder.load(run, self._run_numbers)
        while encoder.encode_run(self._frames):
            self._append_frames()

    def add_pages(self, key: bytes, first_block: int, lsn: int, kind: int, data: Bytes) -> None:
        """Whole pages of one chunk, in order, as image versions of `kind` at one LSN.

        A chunk's stripe comes in calls that follow each other, of this and of add_run.
        """
        if len(data) % BLOCK_BYTES:
            raise ValueError(f"pages of {len(data)} bytes: not a multiple of {BLOCK_BYTES}")
        encoder, chunk = self._encoder, self._chunk_number(key)
        done = 0
        while BLOCK_BYTES * done < len(data):
            done += encoder.encode_pages(
                self._frames, chunk, first_block + done, lsn, kind, data, BLOCK_BYTES * done
            )
            self._append_frames()

    def _chunk_number(self, key: bytes) -> int:
        """Chunks are numbered in order of their first mention."""
        return self._chunk_numbers.setdefault(key, len(self._chunk_numbers))

    @property
    def bytes_stored(self) -> int:
        """The file's bytes so far, those included that wait to be written."""
        return self._offset

    def _append_frames(self) -> None:
        """What the encoder has just made."""
        encoder, table = self._encoder, self._table
        count = encoder.frames
        places = memoryview(encoder.places)[: 2 * count]
        for header, stored in layer_file.seal_frames(
            self._frames, memoryview(encoder.out), places, self._identity, self._codec
        ):
            table["offset"].append(self._offset)
            table["stored"].append(len(header) + len(stored))
            self._append(header, stored)
        table["raw"].extend(places[1::2])
        table["layer"].extend(encoder.first_layer[:count])
        table["block"].extend(encoder.first_block[:count])
        table["lsn"].extend(encoder.first_lsn[:count])
        self._frames += count

    def _append(self, *parts: Bytes) -> None:
        length = sum(len(part) for part in parts)
        self._parts.extend(parts)
        self._waiting += length
        self._offset += length
        if self._waiting >= APPEND_BYTES:
            self._require_room(self._waiting)
            self._storage.append(self._file, self._parts)
            self._parts = []
            self._waiting = 0

    def finish(self) -> BundleInfo:
        """Write directory, table and footer; fsync the file, then its directory."""
        directory = self._layer_directory()
        table = _with_count(self._frames, [self._table[name] for name, _ in _TABLE_CODES])
        directory_offset = self._offset
        directory_frame = self._append_section(FrameKind.DIRECTORY, directory)
        table_offset = self._offset
        self._append_section(FrameKind.TABLE, table)
        footer = Footer(
            self.name.kind_text,
            *self._ids,
            min(self._layer_column("lsn_start"), default=0),
            max(self._layer_column("lsn_end"), default=0),
            self._encoder.layers.count,
            self._frames,
            self._encoder.versions,
            directory_offset,
            table_offset - directory_offset,
            table_offset,
            self._offset - table_offset,
        )
        tail = layer_file.pack_footer(footer, self._identity)
        self._append(tail)
        self._storage.append(self._file, self._parts)
        self._storage.sync(self._file)
        self._storage.sync_directory(self._directory)
        self._storage.close(self._file)
        _, footer_crc = layer_file.unpack_trailer(tail[-layer_file.TRAILER_BYTES :], "")
        return BundleInfo(self.name, self._offset, footer_crc, footer, directory_frame)

    def abort(self) -> None:
        """Leave nothing behind."""
        if self._file.descriptor >= 0:
            self._storage.close(self._file)
        self._storage.remove(self._directory / self.name.text)

    def _append_section(self, kind: FrameKind, raw: bytes) -> bytes:
        sealed = b"".join(layer_file.seal(kind, 0, raw, self._identity, self._codec))
        self._append(sealed)
        return sealed

    def _layer_column(self, name: str) -> list[int]:
        layers = self._encoder.layers
        return memoryview(getattr(layers, name))[: layers.count].tolist()

    def _layer_directory(self) -> bytes:
        """The layer directory, raw, its rows sorted by (chunk key, stripe)."""
        mentioned = list(self._chunk_numbers)
        keys = [mentioned[chunk] for chunk in self._layer_column("chunk")]
        places = list(zip(keys, self._layer_column("stripe"), strict=True))
        count = len(places)
        order = sorted(range(count), key=places.__getitem__)
        if len(set(places)) != count:
            raise ValueError(f"bundle {self.name.text}: a stripe's versions came in two parts")
        columns = [array("B", b"".join(keys[i] for i in order))]
        for name, _ in DIRECTORY_COLUMNS[1:]:
            if name == "kind":
                kinds = layer_kinds(self.name.kind, self._layer_column("fuzzy"))
                columns.append(array("B", [kinds[i] for i in order]))
            elif name == "number":
                columns.append(array("I", order))
            else:
                values = self._layer_column(name)
                code = "Q" if name.startswith("lsn") else "I"
                columns.append(array(code, [values[i] for i in order]))
        return _with_count(count, columns)


_TABLE_CODES = (("offset", "Q"), ("stored", "I"), ("raw", "I"), ("layer", "I"), ("block", "I"),
                ("lsn", "Q"))  # fmt: skip


def _with_count(count: int, columns: Iterable["array[int]"]) -> bytes:
    return count.to_bytes(4, "little") + b"".join(column.tobytes() for column in columns)
