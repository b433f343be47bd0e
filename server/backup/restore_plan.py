"""What a restore brings back: the state of the directory it makes, and what it needs of the bucket.

    whole        everything up to the remote LSN; the directory goes on from there
    as of L      what reads at or below L may need; the directory ends at L
    of chunks    bundles that have layers of these chunks, or of what is kept everywhere (histories,
                 small files, commit times); layers of other chunks count no longer

No I/O but for the directories of bundles, which a restore of chunks asks for one by one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from formats import chunk_filter, layer_bits
from formats.bucket import JournalAdded
from formats.bucket_state import BucketState
from formats.chunk import ChunkKey
from formats.layer_directory import LayerDirectory
from formats.lsn import show as show_lsn
from formats.manifest import Manifest
from formats.manifest_end import ending_at
from formats.manifest_record import FileAdded


class RestoreRefusedError(Exception):
    """It cannot be done, or not here; the text says what can."""


@dataclass(frozen=True)
class Plan:
    """`manifest` is that of the directory; `objects` has each of its bundles' names in the bucket;
    `pieces` are the WAL above its durable LSN, cut off at `end_lsn`."""

    manifest: Manifest
    objects: dict[str, str]  # by the bundle's name
    pieces: list[JournalAdded]
    end_lsn: int

    @property
    def files(self) -> list[FileAdded]:
        """In order of names."""
        return [self.manifest.files[name] for name in sorted(self.manifest.files)]

    @property
    def bytes_total(self) -> int:
        return sum(record.bytes_total for record in self.files)

    @property
    def journal_bytes(self) -> int:
        return sum(min(p.lsn_end, self.end_lsn) - p.lsn_start for p in self.pieces)


def plan(state: BucketState, lsn: int | None = None, *, always_ends: bool = False) -> Plan:
    """The restore of a bucket's state, whole or as of an LSN. RestoreRefusedError.

    The newest LSN that the bucket has is no different from none, as there is nothing to leave out;
    with `always_ends` the directory ends there as well.
    """
    if state.manifest.identity is None:
        raise RestoreRefusedError("there is no backup yet: its manifest names no cluster")
    end = max(state.manifest.durable_lsn, state.remote_lsn)
    if lsn is None or (lsn == state.remote_lsn and not always_ends):
        manifest = state.manifest.copy()
    else:
        _check_readable(state, lsn)
        manifest, end = ending_at(state.manifest, lsn), lsn
    objects = {name.text: state.object_of(name) for name in manifest.files}
    # A journal that ends below the durable LSN says nothing that layers do not say.
    is_useful = state.journal and state.journal[0].lsn_start <= manifest.durable_lsn < end
    pieces = [piece for piece in state.journal if is_useful and piece.lsn_start < end]
    return Plan(manifest, objects, pieces, end)


def _check_readable(state: BucketState, lsn: int) -> None:
    manifest, remote = state.manifest, state.remote_lsn
    held = {point.lsn for point in manifest.points.values()}
    held |= {lease.lsn for lease in manifest.leases.values()}
    if lsn <= remote and (lsn >= manifest.horizon_lsn or lsn in held):
        return
    if not remote:
        raise RestoreRefusedError(
            f"the state at {show_lsn(lsn)} is not in the bucket: nothing can be read yet, as it "
            "has no WAL up to the end of the base backup, "
            f"{show_lsn(manifest.backup_end_lsn)}; without --lsn the primary can complete it"
        )
    why = f"above the remote LSN {show_lsn(remote)}, with which it ends"
    if lsn < manifest.horizon_lsn:
        why = f"below the horizon {show_lsn(manifest.horizon_lsn)}, and no point or lease keeps it"
    raise RestoreRefusedError(
        f"the state at {show_lsn(lsn)} is not in the bucket: it is {why}. There is "
        f"{', '.join(_choices(manifest, remote))}"
    )


def _choices(manifest: Manifest, remote: int) -> list[str]:
    """The LSNs that a restore can be of, in words."""
    found = [f"any LSN from {show_lsn(manifest.horizon_lsn)} to {show_lsn(remote)}"]
    held = [(point.lsn, f"point {name}") for name, point in manifest.points.items()]
    held += [(lease.lsn, f"lease {name}") for name, lease in manifest.leases.items()]
    below = sorted(each for each in held if each[0] < manifest.horizon_lsn)
    return found + [f"{show_lsn(lsn)} of {name}" for lsn, name in below]


def of_chunks(whole: Plan, spec: str, directories: Callable[[FileAdded], LayerDirectory]) -> Plan:
    """The part of a plan that a directory with `--chunks spec` has. RestoreRefusedError.

    `directories` reads the layer directory of a bundle.
    """
    identity = whole.manifest.identity
    assert identity is not None, "a plan is of a cluster"
    spec = chunk_filter.parse(spec).spec
    if identity.chunks not in ("all", spec):
        raise RestoreRefusedError(f"--chunks {spec}: the backup itself has {identity.chunks} alone")
    if identity.chunks == spec:
        return whole
    wanted = chunk_filter.parse(spec)
    manifest = whole.manifest.copy()
    manifest.identity = replace(identity, chunks=spec)
    for name, record in whole.manifest.files.items():
        directory = directories(record)
        foreign = layer_bits.of_rows(_rows_of_others(directory, wanted))
        gone = layer_bits.union(foreign, manifest.removed.get(name, b""))
        if layer_bits.count(gone) < directory.count:
            if any(gone):
                manifest.removed[name] = gone
            continue
        del manifest.files[name]
        manifest.removed.pop(name, None)
        manifest.uploaded.pop(name, None)
        manifest.settled.discard(name)
    objects = {name.text: whole.objects[name.text] for name in manifest.files}
    return replace(whole, manifest=manifest, objects=objects)


def _rows_of_others(directory: LayerDirectory, wanted: chunk_filter.ChunkFilter) -> Iterable[int]:
    for row in range(directory.count):
        key = ChunkKey.unpack(directory.key(row))
        if not wanted.matches(*key):
            yield row
