"""Fuzzing of everything that parses bytes from outside; `python -m tools.fuzz --help` runs it."""
