"""Cases for testing redo: a page, a record's part for it, and what PostgreSQL says comes of it.

They are cut out of real WAL with `wal_consistency_checking = all`, where every record brings the
page as it must be after it (tools/redo_oracle.py). Two things that PostgreSQL's own comparison of
these images leaves out are in a case all the same:

- pd_lsn. An image is taken before its record has an LSN, so it shows that of the page's record
  before: the *next* image of a page says what the LSN must be after this record.
- The bits of a visibility map. The images have them; only the mask hides them. A map also changes
  by records that do not name its page, so a case of a map is the chain of all that has changed it
  since its last image.

    python -m tools.redo_cases DIRECTORY [MAJOR...]

runs the loads of tests/fixtures on servers and writes DIRECTORY/<major>.cases, of each kind of part
(resource manager, opcode, block id) some that differ in length, flags and fullness of the page.
Cases that our redo gets wrong are no cases: exit code 1 says that there were some.
"""

import gzip
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import msgpack

from engine.errors import RequestError
from engine.record_batch import RecordBatch
from engine.version_set import VersionSet
from formats import rmgr
from formats.chunk import BLOCK_BYTES, Fork
from formats.lsn import parse as parse_lsn
from formats.postgres_versions import VERSIONS
from formats.version import RECORD
from tools.excuses import explain_gist_deleted, page_lsn
from tools.masks import Pair, apply_masks
from tools.postgres import Server, Workspace
from tools.redo_oracle import APPLY, HASH_LOCKED_ONLY, IMAGE, Checker, Comparison, segments

WITH_CHECKSUMS = (15, 17, 18)  # without them one record leaves pd_lsn alone
LOADS = Path(__file__).parents[1] / "tests/fixtures"
WITHOUT_IMAGES = "record_text_load.sql"  # turns off what oracle A starts from
SETTINGS = {
    "wal_consistency_checking": "all",
    "wal_compression": "on",
    "wal_keep_size": "4GB",
    "max_wal_size": "4GB",
    "autovacuum": "off",
    "fsync": "off",
    "checkpoint_timeout": "1h",
    "max_prepared_transactions": "10",
    "gin_pending_list_limit": "64kB",
    "track_commit_timestamp": "on",
    "wal_level": "logical",
}

CASES_PER_KIND_MAX = 30
LOOKED_AT_ALL = 400
VALUES_PER_FEATURE_MAX = 12
MAIN_BYTES_LOOKED_AT = 24
CHAIN_MAX = 40

Kind = tuple[int, int, int, int]  # resource manager, opcode, block id, 1 if the page is made anew

Page = tuple[int, int, int, int, int]  # tablespace, database, relation, fork, block


@dataclass
class RedoCase:
    """`versions`, oldest first, lead from `before` to `expected`."""

    major: int
    kind: Kind
    fork: int
    block: int  # of the relation
    before: bytes  # 8 KiB
    versions: list[tuple[int, bytes]]  # LSN, payload as formats/version.py has it
    expected: bytes  # 8 KiB, PostgreSQL's image; pd_lsn and pd_checksum are not of this record
    lsn: int | None = None  # what pd_lsn must be, where a later image of the page has shown it

    def first_difference(self, page: bytes | bytearray) -> int | None:
        """Where a page is not what PostgreSQL says, None if nowhere."""
        if self.lsn is not None and page_lsn(page) != self.lsn:
            return 0
        pair = Pair(bytearray(page), self.expected, self.block)
        pair.ours[:10] = pair.theirs[:10]
        if self.fork != Fork.VM:
            apply_masks(pair)
            explain_gist_deleted(pair)  # the image is the primary's
        return pair.first_difference()

    def __str__(self) -> str:
        opcode, block_id = rmgr.show(self.major, *self.kind[:2]), self.kind[2]
        return f"{self.major} {opcode} block {block_id} at {self.versions[-1][0]:X}"


class CaseCollector(Checker):
    """Reads WAL as oracle A does and keeps cases; `report.differences` has what is wrong."""

    def __init__(self, start_lsn: int, major: int, hint_bits_logged: bool) -> None:
        """`hint_bits_logged`: the cluster has data checksums or wal_log_hints."""
        super().__init__(start_lsn, major)
        self.ingest.hint_bits_logged = hint_bits_logged
        self.cases: list[RedoCase] = []
        self.lsn_differs: Counter[Kind] = Counter()  # our pd_lsn and that of the next image
        self._met: Counter[Kind] = Counter()
        self._of_kind: Counter[Kind] = Counter()
        self._seen: Counter[tuple[object, ...]] = Counter()
        self._values: Counter[tuple[Kind, int]] = Counter()
        self._unproven: dict[Page, tuple[RedoCase, int]] = {}
        self._map_lsn: dict[tuple[int, int], int] = {}
        self._versions = VersionSet()

    def _look_at(self, batch: RecordBatch, kinds: list[tuple[int, int]]) -> None:
        for record, opcode in enumerate(kinds):
            for r in range(batch.first_reference[record], batch.first_reference[record + 1]):
                if batch.ref_flags[r] & IMAGE:
                    self._see_image(batch, batch.lsn_end[record], opcode, r)

    def _see_image(self, batch: RecordBatch, lsn: int, opcode: tuple[int, int], r: int) -> None:
        fork, block = batch.ref_flags[r] & 15, batch.ref_block[r]
        is_checked = not batch.ref_image_info[r] & APPLY
        if opcode in HASH_LOCKED_ONLY and batch.ref_id[r] == 0:
            is_checked = False
        kind = (*opcode, batch.ref_id[r], batch.ref_flags[r] >> 6 & 1)
        wanted = is_checked and self._looks_at(kind)
        page = (batch.ref_spc[r], batch.ref_db[r], batch.ref_rel[r], fork, block)
        if not wanted and page not in self._unproven and fork != Fork.VM:
            return
        chunk = self.store.table.find(1, *page[:4], block >> 17)
        place = (chunk, block & 0x1FFFF)
        if page in self._unproven:
            self._prove_lsn(*self._unproven.pop(page), self.image(batch, r), place, lsn)
        if wanted:
            self.compare_all(batch, [Comparison(opcode, lsn, r, batch.ref_id[r], chunk, block)])
            since = self._map_lsn.get(place, 0) if fork == Fork.VM else lsn - 1
            case = self._case(place, since, lsn, self.image(batch, r), fork, block)
            if case is not None and self._is_wanted(case):
                self._keep(case, place, page)
        if fork == Fork.VM:
            self._map_lsn[place] = lsn

    def _prove_lsn(
        self, case: RedoCase, ours: int, image: bytes, place: tuple[int, int], lsn: int
    ) -> None:
        """An image shows the pd_lsn of the page's record before, if nothing came between."""
        try:
            if page_lsn(self.page(*place, lsn - 1)) != ours:
                return
        except RequestError:
            return  # a checkpoint came between, and what was before it is forgotten
        if page_lsn(image) == ours:
            case.lsn = ours
        elif page_lsn(image) != 0:  # else the primary has made the page anew for this record
            self.lsn_differs[case.kind] += 1

    def _case(
        self, place: tuple[int, int], since: int, lsn: int, image: bytes, fork: int, block: int
    ) -> RedoCase | None:
        """What leads from the page at `since` to the page at `lsn`, if it is a record."""
        chunk, in_chunk = place
        versions, table = self._versions, self.store.table
        past = table.seg[chunk] << 17
        floor = self.store.history.floor(table.root[chunk], in_chunk + past, lsn)
        versions.reset()
        self.store._collect(chunk, in_chunk, max(floor, since), lsn, versions)
        chain = [(int(versions.lsn[n]), versions.payload(n)) for n in range(versions.count, 0, -1)]
        if not chain or chain[-1][0] != lsn or len(chain) > CHAIN_MAX:
            return None
        payload = chain[-1][1]
        if payload[0] != RECORD:
            return None
        try:
            before = self.page(chunk, in_chunk, since) if since > floor else bytes(BLOCK_BYTES)
        except RequestError:
            before = bytes(BLOCK_BYTES)
        kind = (payload[1], payload[2] & 0xF0, payload[3], payload[5] & 1)
        return RedoCase(self.major, kind, fork, block, bytes(before), chain, image)

    def _looks_at(self, kind: Kind) -> bool:
        """Each of the first of a kind, then ever fewer: most are like those before."""
        self._met[kind] += 1
        met = self._met[kind]
        rare = met <= LOOKED_AT_ALL or met % (met // LOOKED_AT_ALL * 4) == 0
        return rare and self._of_kind[kind] < CASES_PER_KIND_MAX

    def _is_wanted(self, case: RedoCase) -> bool:
        """Whether it has a feature that too few cases of its kind have."""
        if self._of_kind[case.kind] >= CASES_PER_KIND_MAX:
            return False
        wanted = False
        for number, value in enumerate(_features(case)):
            if self._seen[case.kind, number, value]:
                continue
            if self._values[case.kind, number] < VALUES_PER_FEATURE_MAX:
                self._seen[case.kind, number, value] += 1
                self._values[case.kind, number] += 1
                wanted = True
        return wanted

    def _keep(self, case: RedoCase, place: tuple[int, int], page: Page) -> None:
        try:
            ours = self.page(*place, case.versions[-1][0])
        except RequestError:
            return  # a difference, reported
        if case.first_difference(ours) is None:
            self._of_kind[case.kind] += 1
            self.cases.append(case)
            self._unproven[page] = (case, page_lsn(ours))
        elif case.fork == Fork.VM:
            self.report.differs(f"{case}: the bits of the visibility map")


def _features(case: RedoCase) -> Iterator[int]:
    """What tells a case from others of its kind."""
    payload, page = case.versions[-1][1], case.before
    data_length = int.from_bytes(payload[6:8], "little")
    main_length = int.from_bytes(payload[12:16], "little")
    main = 16 + 5 * payload[4]
    yield payload[4]
    yield data_length.bit_length()
    yield main_length.bit_length()
    yield int.from_bytes(page[10:12], "little")
    yield int.from_bytes(page[12:14], "little").bit_length()
    yield (int.from_bytes(page[14:16], "little") - int.from_bytes(page[12:14], "little")) >> 11
    yield int.from_bytes(page[-4:], "little") if page[16:18] != b"\0\x20" else 0
    yield len(case.versions)
    yield from payload[main : main + min(main_length, MAIN_BYTES_LOOKED_AT)]


def collect(directory: Path, start_lsn: int, major: int, hint_bits_logged: bool) -> CaseCollector:
    """Cases from a checkpoint's redo LSN to the end of the WAL files of `directory`."""
    collector = CaseCollector(start_lsn, major, hint_bits_logged)
    for lsn, data in segments(directory, start_lsn):
        for skip in range(0, len(data), 1 << 20):
            collector.feed(lsn + skip, data[skip : skip + (1 << 20)])
            if collector.wal.reader.at_end:
                return collector
    return collector


def write(path: Path, cases: list[RedoCase]) -> None:
    path.write_bytes(gzip.compress(msgpack.packb([astuple(case) for case in cases]), 5))


def read(path: Path) -> list[RedoCase]:
    return [
        RedoCase(major, tuple(kind), fork, block, before, versions, expected, lsn)
        for major, kind, fork, block, before, versions, expected, lsn in msgpack.unpackb(
            gzip.decompress(path.read_bytes())
        )
    ]


def run_loads(server: Server) -> None:
    """Everything that makes records of many kinds, each load in a schema of its own."""
    for load in sorted(set(LOADS.glob("*.sql")) - {LOADS / WITHOUT_IMAGES}):
        schema = load.stem
        server.sql(f"CREATE SCHEMA {schema}")
        script = load.read_text(encoding="utf-8")
        server.psql(f"SET search_path = {schema}, public;\n{script}")
    server.pgbench("-i", "-s", "1", "-q")
    server.sql("CREATE TABLE mx(a int PRIMARY KEY, b int)")
    server.sql("INSERT INTO mx SELECT g, 0 FROM generate_series(1, 200) g")
    server.sql("CREATE TABLE raced(k int, a int[], t text)")
    server.sql("CREATE INDEX raced_direct ON raced USING gin(a) WITH (fastupdate = off)")
    server.sql("CREATE INDEX raced_list ON raced USING gin(a)")
    server.pgbench("-n", "-c", "4", "-t", "250")
    for source in sorted(LOADS.glob("*.pgbench")):
        copy = server.data_dir.parent / source.name
        copy.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        copy.chmod(0o644)
        server.pgbench("-n", "-c", "4", "-t", "150", "-f", str(copy))
    server.sql("VACUUM FREEZE")


def collect_from_server(workspace: Workspace, major: int) -> CaseCollector:
    checksums = major in WITH_CHECKSUMS
    arguments = ("--data-checksums",) if checksums and major < 18 else ()
    server = workspace.cluster(major, SETTINGS, arguments).start()
    server.sql("CHECKPOINT")
    ((start,),) = server.sql("SELECT redo_lsn::text FROM pg_control_checkpoint()")
    run_loads(server)
    server.stop()
    return collect(server.data_dir / "pg_wal", parse_lsn(start), major, checksums)


def main(arguments: list[str]) -> int:
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    wrong = 0
    with Workspace() as workspace:
        for major in map(int, arguments[1:] or VERSIONS):
            collector = collect_from_server(workspace, major)
            write(directory / f"{major}.cases", collector.cases)
            report = collector.report
            wrong += report.count + collector.lsn_differs.total()
            shown = sum(case.lsn is not None for case in collector.cases)
            print(
                f"PostgreSQL {major}: {report.compared.total()} pages compared, "
                f"{report.count} differences; {len(collector.cases)} cases of "
                f"{len({case.kind for case in collector.cases})} kinds, "
                f"pd_lsn shown of {shown}, not ours in {dict(collector.lsn_differs)}",
                flush=True,
            )
            for text in report.differences:
                print(text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
