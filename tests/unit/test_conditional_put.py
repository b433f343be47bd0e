"""A store whose conditional PUT cannot be relied on is found out."""

import threading
from collections.abc import Sequence

import pytest

from server.backup.conditional_put import RACERS, probe
from server.backup.object_store import ObjectStore, RefusedError, TakenError


class Store:
    """`put_new` and `delete` of an ObjectStore that keeps its word."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.lock = threading.Lock()

    def put_new(self, name: str, data: bytes) -> None:
        with self.lock:
            if name in self.objects:
                raise TakenError(name)
            self.objects[name] = data

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            self.objects.pop(name, None)


class Ignoring(Store):
    def put_new(self, name: str, data: bytes) -> None:
        self.objects[name] = data


class LookingFirst(Store):
    """Looks whether the name is taken, and writes when all others have looked as well."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = threading.Barrier(RACERS)

    def put_new(self, name: str, data: bytes) -> None:
        taken = name in self.objects
        if not name.endswith("-alone"):  # where one comes after the other
            self.looked.wait(10)
        if taken:
            raise TakenError(name)
        self.objects[name] = data


class LosingAnswers(Store):
    """Every PUT comes through, and is then tried again."""

    def put_new(self, name: str, data: bytes) -> None:
        self.objects.setdefault(name, data)
        raise TakenError(name)


@pytest.mark.parametrize("store", [Store(), LosingAnswers()], ids=lambda one: type(one).__name__)
def test_taken(store: ObjectStore) -> None:
    probe(store, "nonce")
    assert store.objects == {}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("store", "said"),
    [(Ignoring(), "ignores If-None-Match"), (LookingFirst(), "several conditional PUTs at once")],
    ids=["ignoring", "looking-first"],
)
def test_refused(store: ObjectStore, said: str) -> None:
    with pytest.raises(RefusedError, match=f"{said}.*fencing = off"):
        probe(store, "nonce")
    assert store.objects == {}  # type: ignore[attr-defined]
