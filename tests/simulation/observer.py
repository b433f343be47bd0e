"""Where tasks may pause besides the disk, and what the store did meanwhile."""

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from engine.page_store import PageStore
from formats import layer_bits
from formats.file_name import FileKind, FileName
from tests.simulation.scheduler import Scheduler


class Observer:
    """Of one life: replaces methods of the store by ones that pause, or count, and do the same."""

    def __init__(self, scheduler: Scheduler, store: PageStore, totals: Counter[str]) -> None:
        self._scheduler = scheduler
        self._totals = totals
        self._commits = 0
        self._removals = 0
        self._unlinked = 0
        self._shown: Collection[FileName] = store.manifest.state.files  # to who begins to read
        self._begun: dict[object, Collection[FileName]] = {}  # reads of layers: what was shown
        layers = store.layers
        self._commit = layers.commit
        layers.commit = self._count_commit  # type: ignore[method-assign]
        self._pausing(layers.index, "stripe")
        self._watch_begin(store)
        self._pausing(layers.map, "collect_batch")
        self._pausing(store.versions, "publish")
        forget = layers.map.forget

        def count_unlinked(name: FileName) -> None:
            if name in store.manifest.state.files:  # it only goes from here, or another copy comes
                totals["files evicted"] += 1
                forget(name)
                return
            assert not any(name in files for files in self._begun.values()), f"{name} is read"
            self._unlinked += 1
            totals["files unlinked"] += 1
            forget(name)

        layers.map.forget = count_unlinked  # type: ignore[method-assign]

    def _watch_begin(self, store: PageStore) -> None:
        """Whoever reads layers may want any file that was shown when the read began."""
        layers = store.layers.map
        collect = layers.collect_batch

        def collect_watched(*arguments: Any) -> None:
            read = object()
            self._begun[read] = self._shown
            try:
                collect(*arguments)
            finally:
                del self._begun[read]

        layers.collect_batch = collect_watched  # type: ignore[method-assign]
        for name in ("change", "reload"):
            self._showing(store, name, getattr(layers, name))

    def _showing(self, store: PageStore, name: str, change: Callable[..., None]) -> None:
        def change_and_show(*arguments: Any) -> None:
            change(*arguments)
            self._shown = store.manifest.state.files

        setattr(store.layers.map, name, change_and_show)

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
