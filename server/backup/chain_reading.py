"""Reading a bucket's chain of entries: the newest snapshot that is not damaged, and what follows.

Snapshots and entries that are not needed any more are deleted by whoever holds the epoch, so they
may go while they are read. Then there is a newer snapshot, and reading begins anew.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from formats.bucket import ENTRIES, SNAPSHOTS, entry_name, parse_serial, snapshot_name
from formats.bucket_state import BucketState, unpack_chain_entry, unpack_snapshot
from formats.errors import CorruptionError
from server.backup.object_store import NotThereError, ObjectStore

InParallel = Callable[[Callable[[str], bytes], Iterable[str]], Iterable[bytes]]


class ChangedError(Exception):
    """Something was deleted between its listing and its reading: read again."""


@dataclass
class Chain:
    """What was read."""

    state: BucketState
    entries: int = 0  # since the snapshot
    entry_bytes: int = 0  # of those
    snapshot_bytes: int = 0


def read_chain(store: ObjectStore, in_parallel: InParallel) -> Chain:
    """The state, as it was at one moment since the call.

    CorruptionError if what is needed for it is damaged or lost; ChangedError; StoreError.
    """
    snapshots = _serials(store, SNAPSHOTS)
    damage: list[CorruptionError] = []
    try:
        chain = _read_snapshots(store, snapshots, damage)
        begin = chain.state.serial
        found = _serials(store, ENTRIES, entry_name(begin))
        _check_all_there(store, begin, found, snapshots, damage)
        names = [entry_name(serial) for serial in found]
        for name, data in zip(names, in_parallel(store.get, names), strict=True):
            chain.state = unpack_chain_entry(data, chain.state, name)
            chain.entries += 1
            chain.entry_bytes += len(data)
    except NotThereError as error:
        raise ChangedError from error
    return chain


def _serials(store: ObjectStore, prefix: str, after: str = "") -> list[int]:
    try:
        return [parse_serial(info.name) for info in store.list(prefix, after)]
    except ValueError as error:
        raise CorruptionError("name of an object", prefix, "a serial", error) from error


def _read_snapshots(store: ObjectStore, serials: list[int], damage: list[CorruptionError]) -> Chain:
    """What the newest of these says that is not damaged; nothing if none is left."""
    for serial in reversed(serials):
        name = snapshot_name(serial)
        data = store.get(name)
        try:
            return Chain(unpack_snapshot(data, serial, name), snapshot_bytes=len(data))
        except CorruptionError as error:
            damage.append(error)
    return Chain(BucketState())


def _check_all_there(
    store: ObjectStore,
    begin: int,
    found: list[int],
    snapshots: list[int],
    damage: list[CorruptionError],
) -> None:
    """The entries from `begin` on have no gap, and reach as far as any snapshot."""
    end = max([begin, *found[-1:], *snapshots[-1:]]) + 1
    lost = next((n for n in range(begin + 1, end) if n - begin > len(found) or
                 found[n - begin - 1] != n), None)  # fmt: skip
    if lost is None:
        return
    if _serials(store, SNAPSHOTS) != snapshots:
        raise ChangedError
    why = f"none, and {damage[0]}" if damage else "none"
    raise CorruptionError("bucket's manifest", entry_name(lost), "an entry", why) from (
        damage[0] if damage else None
    )
