"""The same worlds with hypothesis at the wheel: it chooses what comes next, and makes what fails
short."""

import contextlib

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.simulation.run import check_garbage, simulation
from tests.simulation.world import World

EXAMPLES, STEPS = 150, 40

pytestmark = pytest.mark.timeout(900)
"""To hypothesis the time limit is a failure, of which it seeks a shorter one for five minutes."""


class Worlds(RuleBasedStateMachine):
    """Put, flush, compact, image, collect, lease, crash, reopen, corrupt; and read all along."""

    def __init__(self) -> None:
        super().__init__()
        self.open = contextlib.ExitStack()

    @initialize(seed=st.integers(0, 1 << 16))
    def begin(self, seed: int) -> None:
        self.simulation = self.open.enter_context(simulation(bucket_share=0))
        self.world: World = self.open.enter_context(self.simulation.world(seed))

    @property
    def is_whole(self) -> bool:
        return not self.world.reads.is_damaged

    @rule(times=st.integers(1, 4))
    def put(self, times: int) -> None:
        for _ in range(times):
            self.world.do_records()
        self.world.do_ingest()

    @rule()
    def flush(self) -> None:
        self.world.do_flush()

    @rule(times=st.integers(1, 3))
    def compact_and_image(self, times: int) -> None:
        for _ in range(times):
            self.world.do_compact()

    @rule()
    def collect(self) -> None:
        self.world.do_retention()
        self.world.do_compact()

    @rule()
    def lease_or_point(self) -> None:
        self.world.do_held()

    @rule()
    def let_time_pass(self) -> None:
        self.world.do_tick()

    @rule()
    def read(self) -> None:
        self.world.do_read()

    @rule()
    def finish_what_has_begun(self) -> None:
        self.world.drain()

    @rule()
    def settle(self) -> None:
        self.world.settle()
        self.world.check_all(2)

    @precondition(lambda self: self.is_whole)
    @rule(index=st.sampled_from(["", "last", "earlier", "lost"]))
    def crash(self, index: str) -> None:
        self.world.die(index)

    @precondition(lambda self: self.is_whole)
    @rule()
    def crash_at_a_call(self) -> None:
        self.world.do_crash_soon()

    @precondition(lambda self: self.is_whole)
    @rule()
    def fault(self) -> None:
        self.world.do_fault()

    @precondition(lambda self: self.is_whole and not self.world.is_faulty)
    @rule()
    def reopen(self) -> None:
        self.world.disk.crash_at = -1
        self.world.close()
        self.world.open()

    @precondition(lambda self: self.is_whole)
    @rule()
    def corrupt(self) -> None:
        self.world.do_damage()

    def teardown(self) -> None:
        """It ends well, or with errors where there is damage."""
        with self.open:
            if not hasattr(self, "world"):
                return
            world = self.world
            world.disk.crash_at = -1
            if self.is_whole:
                if world.is_faulty:
                    world.die()
                world.settle()
                world.check_all(4)
                check_garbage(world)
                world.close()
                self.simulation.check_directory(world)
            else:
                world.check_all(2)


TestWorlds = Worlds.TestCase
TestWorlds.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
