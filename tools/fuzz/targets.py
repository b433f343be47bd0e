"""The targets by name."""

import importlib
from typing import Any

from tools.fuzz import corpus
from tools.fuzz.mutator import Mutator

# In the order in which `make fuzz` runs them.
TARGETS = {
    "redo": "RedoTarget",
    "wal-record": "RecordTarget",
    "wal-stream": "StreamTarget",
    "image": "ImageTarget",
    "layer": "LayerTarget",
    "protocol": "ProtocolTarget",
    "metadata": "MetadataTarget",
}


def build(name: str, place: memoryview) -> tuple[Any, dict[int, str]]:
    """A target and what its outcomes mean; `place` is a view of u64."""
    module = importlib.import_module(f"tools.fuzz.{name.removeprefix('wal-')}_target")
    mutator = Mutator(corpus.inputs(name))
    return getattr(module, TARGETS[name])(mutator, place), module.OUTCOMES
