"""What an action is: a function that makes statements, and when it may be drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from tools.sql_fuzzer.state import State


@dataclass(frozen=True)
class Copy:
    """COPY FROM STDIN with its lines."""

    statement: str
    lines: str


@dataclass(frozen=True)
class InDatabase:
    """Statements for another database, over a connection that is closed behind them."""

    dbname: str
    steps: Sequence[str]


Step = str | Copy | InDatabase
Make = Callable[[Random, State], Sequence[Step]]


@dataclass(frozen=True)
class Action:
    """`weight` says how often, relative to others; `in_block` that it may be part of a transaction
    of several actions; `major_min` from which major version on its statements exist."""

    make: Make
    weight: int
    in_block: bool = True
    major_min: int = 14

    @property
    def name(self) -> str:
        return f"{self.make.__module__.rpartition('.')[2]}.{self.make.__name__}"
