"""Where tasks may pause besides the disk, and what the store did meanwhile."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from engine.page_store import PageStore
from formats import layer_bits
from formats.file_name import FileKind
from tests.simulation.scheduler import Scheduler


class Observer:
    """Of one life: replaces methods of the store by ones that pause, or count, and do the same."""

    def __init__(self, scheduler: Scheduler, store: PageStore, totals: Counter[str]) -> None:
        self._scheduler = scheduler
        self._totals = totals
        self._commits = 0
        self._removals = 0
        self._unlinked = 0
        layers = store.layers
        self._commit = layers.commit
        layers.commit = self._count_commit  # type: ignore[method-assign]
        self._pausing(layers.index, "stripe")
        self._pausing(layers.map, "collect_batch")
        self._pausing(store.versions, "publish")
        forget = layers.map.forget

        def count_unlinked(name: Any) -> None:
            self._unlinked += 1
            totals["files unlinked"] += 1
            forget(name)

        layers.map.forget = count_unlinked  # type: ignore[method-assign]

    def _pausing(self, owner: Any, name: str) -> None:
        method = getattr(owner, name)

        def pausing(*arguments: Any) -> Any:
            self._scheduler.pause(f"before {name}", 3)
            found = method(*arguments)
            self._scheduler.pause(f"after {name}", 3)
            return found

        setattr(owner, name, pausing)

    def _count_commit(self, added: Any = (), removed: Any = None, *rest: Any, **how: Any) -> None:
        self._commit(added, removed, *rest, **how)
        totals = self._totals
        self._commits += 1
        for info in added:
            is_image = info.name.kind == FileKind.IMAGE
            merged = "merged" if how.get("is_merged") else "flushed"
            totals["image bundles" if is_image else f"bundles {merged}"] += 1
        for name, rows in (removed or {}).items():
            totals[f"{name.kind.name} layers removed"] += layer_bits.count(rows)
        if removed and not how.get("is_merged"):
            self._removals += 1
            totals["garbage commits"] += 1
        if how.get("pruned"):
            totals["prunings"] += 1

    def watch_read(self, read: Callable[[], None]) -> None:
        """Count what came into the middle of it."""
        before = self._commits, self._removals, self._unlinked
        read()
        self._totals["reads"] += 1
        self._totals["reads across a commit"] += self._commits > before[0]
        self._totals["reads across garbage"] += self._removals > before[1]
        self._totals["reads across an unlink"] += self._unlinked > before[2]
