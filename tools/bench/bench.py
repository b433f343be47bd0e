"""What the benchmarks of one run share: the workspace, the WAL, and how much time they may take."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from tools.bench.c_programs import CPrograms
from tools.bench.generated_wal import GeneratedWal, generate, generate_payloads
from tools.postgres import Workspace

Result = TypeVar("Result")

MIB = 1 << 20
MEMORY_BYTES_MAX = 1 << 30
"""The memory budget that the page server has by default."""


class Bench:
    """One run; what it starts and makes is gone when `resources` is closed."""

    def __init__(self, console: Console, resources: ExitStack, *, quick: bool) -> None:
        self.console = console
        self.resources = resources
        self.quick = quick
        self.workspace = resources.enter_context(Workspace())
        self.programs = CPrograms()

    @cached_property
    def wals(self) -> list[GeneratedWal]:
        """pgbench's WAL, with rare and with frequent full-page images; made when first needed."""
        with self.step("WAL of pgbench, with rare and with frequent full-page images"):
            return generate(self.workspace, self.seconds(20.0), self.scale)

    @cached_property
    def payload_wals(self) -> list[GeneratedWal]:
        """A minute of pgbench with frequent images, and one with random payload as well."""
        with self.step("WAL of a minute of pgbench, with blank and with random payload"):
            return generate_payloads(self.workspace, self.seconds(60.0), self.scale)

    @property
    def scale(self) -> int:
        return 3 if self.quick else 10

    def seconds(self, full: float) -> float:
        return full / 4 if self.quick else full

    def rounds(self, full: int) -> int:
        return 1 if self.quick else full

    def new_directory(self, purpose: str) -> Path:
        path = self.workspace.new_path(purpose)
        path.mkdir()
        return path

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Say what is done, and then how long it took; nothing that moves, it would cost time."""
        begin = time.monotonic()
        self.console.print(f"          {what}", end="\r", highlight=False)
        yield
        self.console.print(f"{time.monotonic() - begin:6.1f} s  {what}", highlight=False)

    def in_turns(
        self, rounds: int, ours: Callable[[], Result], peer: Callable[[], Result]
    ) -> list[tuple[Result, Result]]:
        """Measure both again and again, each as often first as the other."""
        pairs = []
        for number in range(self.rounds(rounds)):
            if number % 2:
                theirs = peer()
                pairs.append((ours(), theirs))
            else:
                mine = ours()
                pairs.append((mine, peer()))
        return pairs
