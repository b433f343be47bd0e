"""A seeded fuzzer of SQL: the statements that break page servers, from several sessions at once.

    python -m tools.sql_fuzzer --pg 18 --seed N --seconds S

Each theme (heap, indexes, transactions, …) is a module with a list of actions: small functions from
a random generator and a session's state to statements. Sessions draw them by weight. What a session
does depends on the seed, its number and the major version alone, never on answers or on time: the
same seed gives each session the same statements in the same order, however far it gets in the time.
"""

from tools.sql_fuzzer.runner import SETTINGS, Report, run

__all__ = ["SETTINGS", "Report", "run"]
