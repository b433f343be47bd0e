"""What lies in a journal's directory, and whether it is whole."""

from dataclasses import dataclass
from pathlib import Path

from engine.journal_segment import verify_segment
from engine.storage import Storage
from formats import wal_page
from formats.errors import CorruptionError
from formats.timeline_history import history_name, parse_history, parse_history_name

SUMS_SUFFIX = ".sums"
UNFINISHED_SUFFIX = ".new"


@dataclass
class JournalNames:
    """What a journal directory holds."""

    segments: dict[int, int]  # number -> newest timeline
    older: list[str]  # segments of which there is one of a later timeline
    histories: list[int]
    leftovers: list[str]


def list_names(storage: Storage, directory: Path, segment_bytes: int) -> JournalNames:
    names = JournalNames({}, [], [], [])
    present = set(storage.list(directory))
    for name in sorted(present):
        timeline = parse_history_name(name)
        if wal_page.is_file_name(name):
            # Names sort by timeline first: a later one replaces.
            newest, number = wal_page.parse_file_name(name, segment_bytes)
            if number in names.segments:
                names.older.append(
                    wal_page.file_name(names.segments[number], number, segment_bytes)
                )
            names.segments[number] = newest
        elif timeline is not None:
            names.histories.append(timeline)
        else:
            is_orphan = name.endswith(SUMS_SUFFIX) and name.removesuffix(SUMS_SUFFIX) not in present
            if is_orphan or name.endswith(UNFINISHED_SUFFIX):
                names.leftovers.append(name)
    return names


def verify_journal(storage: Storage, directory: Path, segment_bytes: int) -> list[str]:
    """What is wrong with the journal of a stopped server, in words; nothing is changed."""
    names = list_names(storage, directory, segment_bytes)
    problems = []
    numbers = sorted(names.segments)
    for number in numbers:
        name = wal_page.file_name(names.segments[number], number, segment_bytes)
        problems += verify_segment(storage, directory / name, segment_bytes, number == numbers[-1])
    for number in range(numbers[0], numbers[-1]) if numbers else ():
        if number not in names.segments:
            problems.append(f"{directory}: WAL segment {number} is missing")
    for timeline in names.histories:
        path = directory / history_name(timeline)
        try:
            parse_history(storage.read_all(path), str(path))
        except CorruptionError as error:
            problems.append(str(error))
    return problems
