"""Where versions lie that are in no memtable, as the read path asks for them."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar

from engine.errors import LayersGoneError
from engine.layer_query import LayerQuery
from engine.version_set import VersionSet

_Arguments = ParamSpec("_Arguments")
_Found = TypeVar("_Found")


def until_layers_stay(read: Callable[_Arguments, _Found]) -> Callable[_Arguments, _Found]:
    """A read of memtables, then layers, until no layers go in between (LayerMap.collect_batch)."""

    @wraps(read)
    def read_again(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Found:
        while True:
            try:
                return read(*arguments, **named)
            except LayersGoneError:
                continue

    return read_again


class LayerSource(Protocol):
    """engine/layer_map.py's LayerMap, or nothing at all."""

    @property
    def epoch(self) -> int: ...

    def collect(
        self, key: bytes, block: int, lsn_max: int, lsn_floor: int, into: VersionSet
    ) -> bool: ...

    def collect_batch(self, query: LayerQuery, since: int | None = None) -> None: ...


class NoLayers:
    """The layers of a store that has none: before its base backup is complete."""

    epoch = 0

    def collect(
        self, key: bytes, block: int, lsn_max: int, lsn_floor: int, into: VersionSet
    ) -> bool:
        return False

    def collect_batch(self, query: LayerQuery, since: int | None = None) -> None:
        return
