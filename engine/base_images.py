"""A base backup's files -> the first layers: image bundles, and one bundle of histories.

Page images are *fuzzy* at the backup's redo LSN (engine/reconstruct.py has the interlock); SLRU
pages have no pd_lsn, and redo over them may repeat, so they are taken as they are. Pages are
written as they come, torn ones are marked, and the size of every relation, SLRU segment and small
file at the end, as their histories' first events; so is the time of pg_control's checkpoint, that a
time is known from the first LSN on. Nothing counts until the caller has named the
bundles in the manifest.
"""

from collections.abc import Callable

from engine.bundle_writer import BundleInfo, BundleWriter, run_of
from engine.storage import Bytes
from formats import timestamp, version
from formats.chunk import COMMIT_TIMES, SEGMENT_BLOCKS, ChunkKey, ChunkKind, SmallFile, small_file
from formats.cluster_path import small_file_key
from formats.control_file import parse_control_file
from formats.file_name import FileKind

BUNDLE_BYTES_MAX = 256 << 20


class BaseImages:
    """Takes the pieces of one base backup, in the order in which they come; one thread."""

    def __init__(
        self,
        create_bundle: Callable[[FileKind], BundleWriter],
        redo_lsn: int,
        is_held: Callable[[ChunkKey], bool],
    ) -> None:
        self.redo_lsn = redo_lsn
        self.blocks: dict[ChunkKey, int] = {}  # by root
        self.bundles: list[BundleInfo] = []
        self._create_bundle = create_bundle
        self._is_held = is_held
        self._writer: BundleWriter | None = None
        self._writer_bytes = 0
        self._key: ChunkKey | None = None
        self._files: dict[ChunkKey, bytes] = {}
        self._torn: list[tuple[ChunkKey, int]] = []

    def add_pages(self, key: ChunkKey, first_block: int, data: Bytes) -> None:
        """Pages of a relation segment or an SLRU segment, in order, each chunk's together."""
        if not self._is_held(key):
            return
        if key != self._key:
            if self._writer_bytes >= BUNDLE_BYTES_MAX:
                self._finish_bundle()
            self._key = key
        if self._writer is None:
            self._writer = self._create_bundle(FileKind.IMAGE)
        kind = version.IMAGE_FUZZY if key.kind == ChunkKind.REL else version.IMAGE_EXACT
        self._writer.add_pages(key.pack(), first_block, self.redo_lsn, kind, data)
        self._writer_bytes += len(data)

    def mark_torn(self, key: ChunkKey, block: int) -> None:
        """A page's checksum is wrong: it was read while it was written.

        That is legal, as WAL has an image of it before the backup's end. If not, it is damaged;
        so it is unreadable until something self-contained replaces it.
        """
        if self._is_held(key):
            self._torn.append((key, block))

    def chunk_size(self, key: ChunkKey, n_blocks: int) -> None:
        """A file has ended: its chunk has so many blocks."""
        root = key.subject()
        if key.kind == ChunkKind.REL:
            n_blocks += key.seg * SEGMENT_BLOCKS
        self.blocks[root] = max(n_blocks, self.blocks.get(root, 0))

    def add_file(self, name: str, data: bytes) -> None:
        """A small file, by its path below the data directory."""
        key = small_file_key(name)
        if key is None:
            raise ValueError(f"base backup: {name} is not a file that is kept")
        self._files[key] = data
        self.blocks[key] = max(1, -(-len(data) // 8192))

    def finish(self) -> list[BundleInfo]:
        """Write what remains; returns all bundles, durable on disk."""
        self._finish_bundle()
        writer = self._create_bundle(FileKind.L0)
        writer.add_run(run_of(self._versions()))
        self.bundles.append(writer.finish())
        return self.bundles

    def abort(self) -> None:
        """Give up what is unfinished; finished bundles are leftovers that a start removes."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None

    def _finish_bundle(self) -> None:
        if self._writer is not None:
            self.bundles.append(self._writer.finish())
            self._writer = None
            self._writer_bytes = 0

    def _versions(self) -> list[tuple[bytes, int, int, bytes]]:
        versions = []
        for key, blocks in self.blocks.items():
            word = version.history_word(True, blocks).to_bytes(8, "little")
            versions.append((key.history().pack(), 0, self.redo_lsn, word))
        torn = bytes([version.UNREADABLE, version.TORN, 0, 0])
        for key, block in self._torn:
            versions.append((key.pack(), block, self.redo_lsn, torn))
        for key, data in self._files.items():
            for block in range(self.blocks[key]):
                piece = data[8192 * block : 8192 * (block + 1)]
                payload = version.file_block(len(data), piece)
                versions.append((key.pack(), block, self.redo_lsn, payload))
        if (time := self._checkpoint_time()) > 0:
            payload = version.commit_time(0, time)
            versions.append((COMMIT_TIMES.pack(), 0, self.redo_lsn, payload))
        return versions

    def _checkpoint_time(self) -> int:
        """Microseconds since 2000."""
        control = parse_control_file(self._files[small_file(SmallFile.PG_CONTROL)])
        return timestamp.from_unix_seconds(control.checkpoint_time)
