"""From a seed to what came of it."""

import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from unittest.mock import patch

from engine import bundle_reader, index, layer_map, page_store, remote_blocks
from engine.bundle_reader import BundleReader
from engine.directory_check import check_directory
from engine.errors import DirectoryRefusedError
from engine.storage import Storage
from formats import frame
from formats.chunk import ChunkKey, ChunkKind
from formats.errors import CorruptionError
from formats.layer_file import LayerKind
from formats.version import IMAGE_EXACT
from tests.fixtures.fast_directory import IN_MEMORY
from tests.simulation.backed_up import BackedUp
from tests.simulation.lives_with_bucket import live_backed_up
from tests.simulation.scheduler import Scheduler
from tests.simulation.small_sizes import small_sizes
from tests.simulation.template import Template
from tests.simulation.two_writers import often_snapshots
from tests.simulation.world import World

LIVES_MAX = 2
BUCKET_SHARE = 1 / 40
STEPS = 37  # of a life, at most
TRACE_SHOWN = 60


class Simulation:
    """Runs seeds one after the other, in directories of its own."""

    def __init__(self, root: Path, bucket_share: float = BUCKET_SHARE) -> None:
        """`bucket_share`: the part of all worlds that have a bucket."""
        self._root = root
        self._bucket_share = bucket_share
        self._scheduler = Scheduler()
        self._threads = self._scheduler.threading()
        with self._in_turns():
            self._template = Template(root / "begin")

    @property
    def on_event(self) -> Callable[[str], object]:
        """Is told each turn."""
        return self._scheduler.on_event

    @on_event.setter
    def on_event(self, tell: Callable[[str], object]) -> None:
        self._scheduler.on_event = tell

    @contextmanager
    def _in_turns(self) -> Iterator[None]:
        with contextlib.ExitStack() as changes:
            changes.enter_context(small_sizes())
            changes.enter_context(often_snapshots())
            for module in (bundle_reader, index, layer_map, page_store):
                changes.enter_context(patch.object(module, "threading", self._threads))
            changes.enter_context(patch.object(remote_blocks, "Future", self._scheduler.future))
            yield

    def run(self, seed: int) -> Counter[str]:
        """Live through a seed's world; what happened. A failure has notes that say how to repeat
        it, and what came before."""
        with self.world(seed) as world:
            try:
                if isinstance(world, BackedUp):
                    live_backed_up(world)
                else:
                    live(world)
                if world.is_all_here and not world.reads.is_damaged and world.random.random() < 0.2:
                    self.check_directory(world)
                world.totals["pauses"] += self._scheduler.pauses
                return world.totals
            except BaseException as error:
                error.add_note("\n".join(self._scheduler.trace[-TRACE_SHOWN:]))
                bucket = " --bucket" if self._bucket_share == 1 else ""
                error.add_note(f"python -m tests.simulation --seeds {seed}..{seed + 1}{bucket}")
                raise

    @contextmanager
    def world(self, seed: int) -> Iterator[World]:
        """A world that has just begun; nothing of it stays."""
        directory = self._root / "world"
        with self._in_turns():
            try:
                has_bucket = Random(f"has a bucket: {seed}").random() < self._bucket_share
                kind = BackedUp if has_bucket else World
                yield kind(seed, directory, self._template, self._scheduler)
            finally:
                self._scheduler.kill()
                shutil.rmtree(directory, ignore_errors=True)

    def check_directory(self, world: World) -> None:
        """`layertool verify`, of a world that was closed."""
        world.totals["directories verified"] += 1
        work = self._root / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        found = [str(finding) for finding in check_directory(Storage(), world.directory, work)]
        assert found == [], "layertool verify"


def live(world: World) -> None:
    """Some lives, and a last one that ends well, or with damage."""
    random = world.random
    for _ in range(random.randint(1, LIVES_MAX) - 1):
        world.run(random.randint(5, STEPS))
        trouble = random.choice(("kill", "crash", "crash", "fault", "power", "stop"))
        if trouble == "crash":
            world.do_crash_soon()
            world.run(random.randint(1, 20))
        elif trouble == "fault":
            world.do_fault()
            world.run(random.randint(5, 20))
            world.check_all(1)  # whatever is mended or not
        elif trouble == "stop":
            world.close()
            world.open()
            continue
        world.die("" if trouble in ("kill", "fault") else "last")
    world.run(random.randint(5, STEPS))
    if random.random() < 0.08 and world.do_damage():
        live_with_damage(world)
        return
    if random.random() < 0.3:
        world.check_all(3)
    world.settle()
    world.check_all(6)
    if random.random() < 0.3:
        check_garbage(world)
    world.close()


def live_with_damage(world: World) -> None:
    """Nothing is wrong but what is refused; and so it is after a start, if there is one."""
    world.run(15)
    world.check_all(2)
    try:
        world.die()
    except (CorruptionError, DirectoryRefusedError, OSError):
        world.totals["starts refused"] += 1
        return
    world.run(10)
    world.check_all(2)


def check_garbage(world: World) -> None:
    """An image layer is there for somebody, and so is every file; no merge has crossed an image."""
    store = world.store
    store.compactor._surveyed = None  # images may have come after the last look
    world.settle()
    true = store.manifest.state
    held = {one.lsn for one in (*true.points.values(), *true.leases.values())}
    asked = {lsn for lsn in held if lsn < true.horizon_lsn} | {true.horizon_lsn}
    for (key, stripe), layers in store.layers.index.stripes_after(None, 1 << 20):
        images = sorted(layer.lsn_start for layer in layers if layer.kind != LayerKind.DELTA)
        needed = {max((x for x in images if x <= lsn), default=0) for lsn in asked}
        left = [x for x in images if x <= true.horizon_lsn and x not in needed]
        assert not left, f"images that nobody needs: {left} of {key.hex()} {stripe}"
        subject = ChunkKey.unpack(key).subject()
        if subject.kind != ChunkKind.TIME and true.durable_lsn >= true.horizon_lsn:
            is_known = store.layers.index.relation(subject.pack()) is not None
            is_old = any(layer.lsn_end <= true.horizon_lsn for layer in layers)
            assert is_known or not is_old, f"layers of what exists nowhere: {key.hex()} {stripe}"
        for layer in (layer for layer in layers if layer.kind == LayerKind.DELTA):
            crossed = [x for x in images if layer.lsn_start <= x < layer.lsn_end - 1]
            # A memtable begins with images of hot pages, as of before.
            reader = store.layers.map.reader(layer.file)
            below = set(_kinds_to(reader, key, stripe, max(crossed, default=0)))
            assert below <= {IMAGE_EXACT}, f"a layer on both sides of images at {crossed}: {layer}"
    named = {name.text for name in true.files}
    assert set(store.storage.list(store.paths.layers)) == named


def _kinds_to(reader: BundleReader, key: bytes, stripe: int, lsn: int) -> Iterator[int]:
    """The kinds of a layer's versions up to an LSN."""
    directory = reader.directory
    row = directory.find(key, 0, stripe)
    for number in range(directory.frame_start(row), directory.frame_end(row)):
        raw = reader.read_frame(number)
        for slot in range(frame.version_count(raw)):
            is_there = frame.version_layer(raw, slot) == directory.number(row)
            if is_there and frame.version_lsn(raw, slot) <= lsn:
                yield raw[frame.version_start(raw, slot)]


@contextmanager
def simulation(bucket_share: float = BUCKET_SHARE) -> Iterator[Simulation]:
    """In memory, where there is room for files."""
    root = Path(tempfile.mkdtemp(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
    try:
        yield Simulation(root, bucket_share)
    finally:
        shutil.rmtree(root, ignore_errors=True)
