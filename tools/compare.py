"""Compare every page that a page server answers at an LSN with a stopped PostgreSQL's own files.

Every block of every relation fork, every SLRU page, relation map and prepared transaction, both
ways: what the files have must be here, and nothing may be here that they do not have. Pages are
compared in runs of 1 MiB, as bytes; only pages that differ are looked at, through the masks and
excuses of tools/masks.py and tools/excuses.py, each of which is counted.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from formats import lsn as lsn_text
from formats import page_checksum
from formats.chunk import BLOCK_BYTES, SLRU_SEGMENT_BLOCKS, Fork, Slru, SmallFile, small_file
from formats.cluster_path import small_file_path
from formats.control_file import parse_control_file
from server.client import PageServerError
from tools.data_directory import (
    SLRU_DIRECTORIES,
    Contents,
    ForkFile,
    RelationFork,
    fork_path,
    scan,
    slru_segments,
)
from tools.excuses import Excuse, Rules, excuse_absent_block, explain, is_bloom
from tools.masks import CHECKSUM, Mask, Pair

RUN_BLOCKS = 128
DIFFERENCES_KEPT_MAX = 1000
NOT_HERE = "PostgreSQL has it, it is not here"
ONLY_HERE = "is here, PostgreSQL has no such file"


class PageSource(Protocol):
    """Where our pages come from: server.client.PageClient, or a directory in tests.

    What cannot be answered raises PageServerError, and is a difference.
    """

    def relations(self, lsn: int) -> Iterable[tuple[int, int, int, int, int]]:
        """(spc, db, rel, fork, blocks) of all that exist."""

    def get_pages(
        self, spc: int, db: int, rel: int, fork: int, first_block: int, count: int, lsn: int
    ) -> bytes: ...

    def slru_segments(self, lsn: int) -> Iterable[tuple[int, int]]: ...

    def slru_segment(self, kind: int, segno: int, lsn: int) -> bytes: ...

    def files(self, lsn: int) -> Iterable[str]: ...

    def file(self, name: str, lsn: int) -> bytes | None: ...


@dataclass(frozen=True)
class Difference:
    """One thing that is not as PostgreSQL has it."""

    path: str
    fork: str
    block: int | None
    lsn: int
    offset: int | None
    what: str

    def __str__(self) -> str:
        block = "" if self.block is None else f" block {self.block}"
        offset = "" if self.offset is None else f" offset {self.offset}"
        return f"{self.path} ({self.fork}){block} at {lsn_text.show(self.lsn)}{offset}: {self.what}"


@dataclass
class Comparison:
    """What a comparison found."""

    lsn: int
    blocks_compared: Counter[str] = field(default_factory=Counter)
    """By fork name, "slru", "relation map" and "prepared transaction"."""
    relation_forks: int = 0
    excuses: Counter[StrEnum] = field(default_factory=Counter)
    difference_count: int = 0
    differences: list[Difference] = field(default_factory=list)
    """The first thousand."""


def compare(
    data_dir: Path,
    source: PageSource,
    lsn: int,
    rules: Rules,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Compare the files of a stopped server with `source` at `lsn`.

    `progress` is called with blocks done and blocks in all.
    """
    return _Comparer(data_dir, source, lsn, rules, progress).run()


class _Comparer:
    def __init__(
        self,
        data_dir: Path,
        source: PageSource,
        lsn: int,
        rules: Rules,
        progress: Callable[[int, int], None],
    ) -> None:
        self.data_dir = data_dir
        self.source = source
        self.lsn = lsn
        self.rules = rules
        self.progress = progress
        control = (data_dir / "global/pg_control").read_bytes()
        self.has_checksums = parse_control_file(control).checksums
        self.result = Comparison(lsn)
        self.blocks_done = 0
        self.blocks_total = 0

    def run(self) -> Comparison:
        contents = scan(self.data_dir)
        for path in contents.unknown:
            self.differs(str(path), "file", None, None, "neither a relation nor known by name")
        self.result.excuses[Excuse.TEMPORARY] += sum(
            (self.data_dir / path).stat().st_size // BLOCK_BYTES for path in contents.temporary
        )
        self.relations(contents)
        for kind in Slru:
            self.slru(kind)
        self.relation_maps(contents)
        self.prepared_transactions()
        return self.result

    def differs(
        self, path: str, fork: str, block: int | None, offset: int | None, what: str
    ) -> None:
        self.result.difference_count += 1
        if len(self.result.differences) < DIFFERENCES_KEPT_MAX:
            self.result.differences.append(Difference(path, fork, block, self.lsn, offset, what))

    # Relations.

    def relations(self, contents: Contents) -> None:
        files = {fork: ForkFile(self.data_dir, paths) for fork, paths in contents.forks.items()}
        ours = {
            RelationFork(*fork): n_blocks for *fork, n_blocks in self.source.relations(self.lsn)
        }
        unlogged = {fork[:3] for fork in files if fork.fork == Fork.INIT}
        self.blocks_total = sum(file.n_blocks for file in files.values())
        for fork in sorted(files.keys() | ours.keys()):
            file = files.get(fork)
            if fork.fork == Fork.FSM:
                self.result.excuses[Excuse.FSM] += file.n_blocks if file else 0
            elif fork.fork != Fork.INIT and fork[:3] in unlogged:
                self.result.excuses[Excuse.UNLOGGED] += file.n_blocks if file else 0
            elif file is None:
                self.differs(
                    fork_path(fork),
                    Fork(fork.fork).name.lower(),
                    None,
                    None,
                    f"is here with {ours[fork]} blocks, PostgreSQL has no such file",
                )
            else:
                self.relation_fork(fork, file, ours.get(fork))
            self.blocks_done += file.n_blocks if file else 0
            self.progress(self.blocks_done, self.blocks_total)

    def relation_fork(self, fork: RelationFork, file: ForkFile, n_ours: int | None) -> None:
        """One fork that the files have; `n_ours` blocks of it are here, None if it is not."""
        name = Fork(fork.fork).name.lower()
        self.result.relation_forks += 1
        if not file.is_whole:
            self.differs(
                str(file.path),
                name,
                file.n_blocks,
                None,
                "the file does not end at the end of a page",
            )
        if not n_ours and fork.fork == Fork.INIT and file.n_blocks and is_bloom(file.read(0, 1)):
            self.result.excuses[Excuse.BLOOM_INIT] += file.n_blocks
            return
        if n_ours is None and not self.may_be_absent(fork, file):
            self.differs(
                str(file.path),
                name,
                None,
                None,
                f"PostgreSQL has it with {file.n_blocks} blocks, it is not here",
            )
            return
        n_here = n_ours or 0
        for first_block in range(0, min(n_here, file.n_blocks), RUN_BLOCKS):
            count = min(RUN_BLOCKS, n_here - first_block, file.n_blocks - first_block)
            self.run_of_pages(fork, file, first_block, count)
        if n_here > file.n_blocks:
            self.differs(
                str(file.path),
                name,
                file.n_blocks,
                None,
                f"here are {n_here} blocks, PostgreSQL has {file.n_blocks}",
            )
        for block in range(n_here, file.n_blocks):
            excuse = excuse_absent_block(file.read(block, 1), Fork(fork.fork), self.rules)
            if excuse is None:
                self.differs(
                    str(file.path),
                    name,
                    block,
                    None,
                    f"here are {n_here} blocks, PostgreSQL has {file.n_blocks}",
                )
                break
            self.result.excuses[excuse] += 1

    def may_be_absent(self, fork: RelationFork, file: ForkFile) -> bool:
        """Whether every block may be absent, and the file's absence is no difference."""
        if self.rules.against != "primary" or not (self.rules.crashed or fork.fork == Fork.VM):
            return False
        absent = all(
            excuse_absent_block(file.read(block, 1), Fork(fork.fork), self.rules)
            for block in range(file.n_blocks)
        )
        self.result.excuses[Excuse.CRASH] += absent and fork.fork != Fork.VM
        return absent

    def run_of_pages(
        self, fork: RelationFork, file: ForkFile, first_block: int, count: int
    ) -> None:
        name = Fork(fork.fork).name.lower()
        theirs = bytearray(file.read(first_block, count))
        ours = self.pages(fork, file, first_block, count)
        self.result.blocks_compared[name] += count
        if len(ours) != len(theirs):
            self.differs(
                str(file.path),
                name,
                first_block + len(ours) // BLOCK_BYTES,
                None,
                f"here are {len(ours)} bytes of {count} pages from block {first_block}",
            )
            return
        if self.has_checksums:
            self.check_checksums(file, name, first_block, ours)
        self.clear_checksums(ours, theirs)
        if ours == theirs:
            return
        for begin in range(0, len(theirs), BLOCK_BYTES):
            our_page, their_page = (page[begin : begin + BLOCK_BYTES] for page in (ours, theirs))
            if our_page != their_page:
                pair = Pair(our_page, bytes(their_page), first_block + begin // BLOCK_BYTES)
                self.page(fork, str(file.path), pair)

    def pages(self, fork: RelationFork, file: ForkFile, first_block: int, count: int) -> bytearray:
        """Our pages; those that cannot be had are differences, and zeros."""
        try:
            return bytearray(self.source.get_pages(*fork, first_block, count, self.lsn))
        except PageServerError as error:
            if count > 1:
                return bytearray().join(
                    self.pages(fork, file, block, 1)
                    for block in range(first_block, first_block + count)
                )
            self.differs(
                str(file.path),
                Fork(fork.fork).name.lower(),
                first_block,
                None,
                f"cannot be read here: {error}",
            )
            return bytearray(file.read(first_block, 1))

    def check_checksums(self, file: ForkFile, name: str, first_block: int, ours: bytearray) -> None:
        """Our pages must carry a checksum that fits, where PostgreSQL would verify it."""
        wrong = array("I", bytes(4 * (len(ours) // BLOCK_BYTES)))
        count = page_checksum.find_bad_checksums(memoryview(ours), first_block, memoryview(wrong))
        for index in wrong[:count]:
            what = "the checksum of our page does not fit it"
            self.differs(str(file.path), name, first_block + index, CHECKSUM, what)

    def clear_checksums(self, ours: bytearray, theirs: bytearray) -> None:
        """Theirs is of the page with hint bits that ours has not: no part of its truth."""
        n_differ = 0
        for page in range(CHECKSUM, len(theirs), BLOCK_BYTES):
            n_differ += ours[page : page + 2] != theirs[page : page + 2]
        self.result.excuses[Mask.CHECKSUM] += n_differ
        for byte in (CHECKSUM, CHECKSUM + 1):
            zeros = bytes(len(theirs) // BLOCK_BYTES)
            ours[byte::BLOCK_BYTES] = zeros
            theirs[byte::BLOCK_BYTES] = zeros

    def page(self, fork: RelationFork, path: str, pair: Pair) -> None:
        """A page that differs as bytes."""
        explain(pair, fork, self.rules)
        offset = pair.first_difference()
        if offset is None:
            self.result.excuses.update(pair.used)
            return
        ours, theirs = (bytes(page[offset : offset + 8]).hex() for page in (pair.ours, pair.theirs))
        self.differs(
            path,
            Fork(fork.fork).name.lower(),
            pair.block,
            offset,
            f"here {ours}, PostgreSQL has {theirs}{pair.remark}",
        )

    # SLRUs, relation maps and prepared transactions.

    def slru(self, kind: Slru) -> None:
        files = slru_segments(self.data_dir, kind)
        ours = {
            segno for ours_kind, segno in self.source.slru_segments(self.lsn) if ours_kind == kind
        }
        for segno in sorted(files.keys() | ours):
            path = str(files.get(segno, f"{SLRU_DIRECTORIES[kind]}/{segno:04X}"))
            if segno not in ours:
                self.differs(path, "slru", None, None, NOT_HERE)
            elif segno not in files:
                self.differs(path, "slru", None, None, ONLY_HERE)
            else:
                self.slru_segment(kind, segno, path)

    def slru_segment(self, kind: Slru, segno: int, path: str) -> None:
        theirs = (self.data_dir / path).read_bytes()
        try:
            ours = self.source.slru_segment(kind, segno, self.lsn)
        except PageServerError as error:
            self.differs(path, "slru", None, None, f"cannot be read here: {error}")
            return
        blocks = range(
            segno * SLRU_SEGMENT_BLOCKS, segno * SLRU_SEGMENT_BLOCKS + len(theirs) // BLOCK_BYTES
        )
        self.result.blocks_compared["slru"] += len(blocks)
        if len(ours) != len(theirs):
            sizes = f"here are {len(ours)} bytes, PostgreSQL has {len(theirs)}"
            self.differs(path, "slru", None, min(len(ours), len(theirs)), sizes)
        for index, block in enumerate(blocks):
            self.bytes_differ(
                path,
                "slru",
                block,
                ours[index * BLOCK_BYTES :][:BLOCK_BYTES],
                theirs[index * BLOCK_BYTES :][:BLOCK_BYTES],
            )

    def relation_maps(self, contents: Contents) -> None:
        for (spc, db), directory in sorted(contents.databases.items()):
            path, ours = f"{directory}/pg_filenode.map", relation_map_name(spc, db)
            self.small_file(path, "relation map", self.source.file(ours, self.lsn))

    def prepared_transactions(self) -> None:
        """A primary that was stopped has the files of all, a standby those of older ones."""
        files = {f"pg_twophase/{file.name}" for file in (self.data_dir / "pg_twophase").iterdir()}
        ours = {name for name in self.source.files(self.lsn) if name.startswith("pg_twophase/")}
        for name in sorted(files | ours if self.rules.against == "primary" else files):
            content = self.source.file(name, self.lsn) if name in ours else None
            self.small_file(name, "prepared transaction", content)

    def small_file(self, path: str, kind: str, ours: bytes | None) -> None:
        file = self.data_dir / path
        theirs = file.read_bytes() if file.exists() else None
        if ours is not None and theirs is not None:
            self.result.blocks_compared[kind] += 1
            self.bytes_differ(path, kind, 0, ours, theirs)
        elif ours is not theirs:
            self.differs(path, kind, None, None, NOT_HERE if ours is None else ONLY_HERE)

    def bytes_differ(self, path: str, fork: str, block: int, ours: bytes, theirs: bytes) -> None:
        """Compare what has no masks."""
        if ours == theirs:
            return
        offset = next(
            (at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
            min(len(ours), len(theirs)),
        )
        self.differs(
            path,
            fork,
            block,
            offset,
            f"here {ours[offset : offset + 8].hex() or 'nothing'}"
            f", PostgreSQL has {theirs[offset : offset + 8].hex() or 'nothing'}",
        )


def relation_map_name(spc: int, db: int) -> str:
    """The name under which a page source knows a relation map."""
    return small_file_path(small_file(SmallFile.PG_FILENODE_MAP, spc, db))
