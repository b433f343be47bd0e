"""Whether a stopped data directory is whole: `layertool verify`.

    manifest   every entry, and that a torn tail is all that is wrong with it
    bundles    every one that the manifest names: there, the same file, and whole
    index      sound, and equal to one rebuilt from the manifest and the bundles
    journal    every segment against its sums
    server_id  against its CRC

Files that nobody names are leftovers of a crash, which the next start removes: mentioned, no fault.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from engine import bundle_check, server_id
from engine.bundle_reader import BundleReader
from engine.index import Index, check_in_child
from engine.index_rebuild import catch_up, check_against_manifest
from engine.journal_directory import verify_journal
from engine.storage import Storage
from formats import manifest as layout
from formats.errors import CorruptionError
from formats.file_name import SUFFIX, FileName
from formats.manifest import Manifest

MANIFEST_NAME = "manifest"
LAYERS_NAME = "layers"
INDEX_NAME = "index"
JOURNAL_NAME = "journal"
LOCK_NAME = "lock"


@dataclass(frozen=True)
class Finding:
    """Something wrong, or a remark about what a crash left; the words of a CorruptionError."""

    what: str
    where: str
    expected: str = ""
    found: str = ""
    is_fault: bool = True

    @classmethod
    def of(cls, error: CorruptionError) -> "Finding":
        return cls(error.what, error.where, str(error.expected), str(error.found))

    def __str__(self) -> str:
        text = f"{self.what} at {self.where}" if self.where else self.what
        return f"{text}: expected {self.expected}, found {self.found}" if self.expected else text


def check_bundle(storage: Storage, path: Path) -> Iterator[Finding]:
    """One bundle by itself."""
    try:
        reader = BundleReader(storage, path)
        for problem in bundle_check.problems(reader):
            yield Finding.of(problem)
    except OSError as error:
        yield Finding("bundle", str(path), "a readable file", str(error))


def check_manifest(storage: Storage, path: Path) -> Iterator[Finding]:
    """One manifest by itself."""
    try:
        data = storage.read_all(path)
        _, last = layout.replay(data, str(path))
    except CorruptionError as error:
        yield Finding.of(error)
        return
    except OSError as error:
        yield Finding("manifest", str(path), "a readable file", str(error))
        return
    if last.end < len(data):
        left = len(data) - last.end
        yield Finding(f"torn tail of {left} bytes, cut off at the next start",
                      f"{path} offset {last.end}", is_fault=False)  # fmt: skip


def check_directory(storage: Storage, root: Path, work: Path) -> Iterator[Finding]:
    """Everything in a data directory that nobody else has open.

    `work` is an empty directory for indexes to compare with.
    """
    yield from _check_server_id(storage, root)
    findings = list(check_manifest(storage, root / MANIFEST_NAME))
    yield from findings
    if any(finding.is_fault for finding in findings):
        for name in _bundle_names(storage, root):
            yield from check_bundle(storage, root / LAYERS_NAME / name)
        return
    data = storage.read_all(root / MANIFEST_NAME)
    state, _ = layout.replay(data, str(root / MANIFEST_NAME))
    faults = 0
    away = {name for name in state.uploaded if not storage.exists(root / LAYERS_NAME / name.text)}
    for finding in _check_bundles(storage, root, state, away):
        faults += finding.is_fault
        yield finding
    yield from _check_index(storage, root, state, None if faults or away else work)
    if storage.exists(root / JOURNAL_NAME) and state.identity is not None:
        size = state.identity.wal_segment_bytes
        for text in verify_journal(storage, root / JOURNAL_NAME, size):
            yield Finding(text, "")


def _check_server_id(storage: Storage, root: Path) -> Iterator[Finding]:
    if storage.exists(root / server_id.FILE_NAME):
        try:
            server_id.read(storage, root)
        except CorruptionError as error:
            yield Finding.of(error)


def _bundle_names(storage: Storage, root: Path) -> list[str]:
    if not storage.exists(root / LAYERS_NAME):
        return []
    return [name for name in storage.list(root / LAYERS_NAME) if name.endswith(SUFFIX)]


def _check_bundles(
    storage: Storage, root: Path, state: Manifest, away: Set[FileName]
) -> Iterator[Finding]:
    """The manifest's files but those that are only in a bucket, and the names in the directory."""
    if away:
        yield Finding(f"{len(away)} of {len(state.files)} bundles are only in the bucket: they are "
                      "not checked here, nor is what the index has of them",
                      str(root / LAYERS_NAME), is_fault=False)  # fmt: skip
    assert state.identity is not None
    ids = (state.identity.tenant, state.identity.timeline)
    for name in sorted(state.files.keys() - away):
        path = root / LAYERS_NAME / name.text
        reader = BundleReader(storage, path)
        try:
            check_against_manifest(reader, state.files[name])
            if (reader.footer.tenant, reader.footer.timeline) != ids:
                found = (reader.footer.tenant, reader.footer.timeline)
                raise CorruptionError("bundle of another tenant or timeline", str(path), ids, found)
        except CorruptionError as error:
            yield Finding.of(error)
        except OSError:
            pass  # check_bundle says it
        yield from check_bundle(storage, path)
    for text in storage.list(root / LAYERS_NAME) if storage.exists(root / LAYERS_NAME) else ():
        try:
            what = "leftover that the manifest does not name, removed at the next start"
            is_known = FileName.parse(text) in state.files
        except ValueError:
            what, is_known = "no file of a page server, left alone", False
        if not is_known:
            yield Finding(what, str(root / LAYERS_NAME / text), is_fault=False)


def _check_index(
    storage: Storage, root: Path, state: Manifest, work: Path | None
) -> Iterator[Finding]:
    """The index, and unless bundles are damaged (no `work`) whether it equals a rebuilt one."""
    path = root / INDEX_NAME
    if not storage.exists(path / "data.mdb"):
        yield Finding("no index, built at the next start", str(path), is_fault=False)
        return
    contents = []
    try:
        check_in_child(path)
        if work is None:
            return
        for name in ("copy", "rebuilt"):
            storage.make_directory(work / name)
            if name == "copy":  # it may be behind the manifest, legally: a copy is caught up
                copy = storage.create(work / name / "data.mdb")
                storage.append(copy, [storage.read_all(path / "data.mdb")])
            index = Index(work / name)
            try:
                catch_up(index, storage, state, root / LAYERS_NAME)
                contents.append(index.dump())
            finally:
                index.close()
    except CorruptionError as error:
        yield Finding.of(error)
        return
    found, rebuilt = contents
    for database in found:
        yield from _compare(database, path, found[database], rebuilt[database])


def _compare(
    database: str, path: Path, found: dict[bytes, bytes], rebuilt: dict[bytes, bytes]
) -> Iterator[Finding]:
    for key in sorted(found.keys() | rebuilt.keys()):
        if found.get(key) != rebuilt.get(key):
            where = f"{path}, {database} key {key.hex()}"
            yield Finding("index, against the manifest and the bundles", where,
                          _hex(rebuilt.get(key)), _hex(found.get(key)))  # fmt: skip


def _hex(value: bytes | None) -> str:
    return "none" if value is None else value.hex()
