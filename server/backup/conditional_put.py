"""Whether a store's conditional PUT can be relied on: all that keeps two writers apart.

Some stores ignore If-None-Match; some look whether the name is taken and only then write, so that
of several that come at once more than one is told that it was the first. The former are always
found out here, the latter nearly always.
"""

from concurrent.futures import ThreadPoolExecutor

from server.backup.object_store import ObjectStore, RefusedError, TakenError

RACERS = 4
ADVICE = (
    "so two servers could write to one backup without noticing it; use a store with conditional "
    "writes (docs/s3-endpoints.md), or set fencing = off and make sure yourself that there is only "
    "ever one server"
)


def probe(store: ObjectStore, nonce: str) -> None:
    """RefusedError unless one PUT of several to a name comes through.

    `nonce` is a name that nobody else uses. Objects of that name below probe/ are left behind only
    if the store fails.
    """
    alone, raced = f"probe/{nonce}-alone", f"probe/{nonce}-raced"
    _put(store, alone, b"first")  # taken: an earlier attempt of ours came through
    ignored = _put(store, alone, b"second")
    with ThreadPoolExecutor(RACERS) as threads:
        racers = [b"racer %d" % number for number in range(RACERS)]
        first_count = sum(threads.map(lambda data: _put(store, raced, data), racers))
    store.delete([alone, raced])
    if ignored:
        raise RefusedError(f"this store ignores If-None-Match on PUT, {ADVICE}")
    if first_count > 1:
        raise RefusedError(f"this store lets several conditional PUTs at once through, {ADVICE}")


def _put(store: ObjectStore, name: str, data: bytes) -> bool:
    try:
        store.put_new(name, data)
    except TakenError:
        return False
    return True
