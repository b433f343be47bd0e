"""Where versions lie that are in no memtable, as the read path asks for them."""

from typing import Protocol

from engine.layer_query import LayerQuery
from engine.version_set import VersionSet


class LayerSource(Protocol):
    """engine/layer_map.py's LayerMap, or nothing at all."""

    def collect(
        self, key: bytes, block: int, lsn_max: int, lsn_floor: int, into: VersionSet
    ) -> bool: ...

    def collect_batch(self, query: LayerQuery) -> None: ...


class NoLayers:
    """The layers of a store that has none: before its base backup is complete."""

    def collect(
        self, key: bytes, block: int, lsn_max: int, lsn_floor: int, into: VersionSet
    ) -> bool:
        return False

    def collect_batch(self, query: LayerQuery) -> None:
        return
