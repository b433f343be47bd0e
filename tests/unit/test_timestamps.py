"""Times in text, both ways."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from formats import timestamp
from server import timestamps

NOON = timestamp.from_datetime(datetime(2026, 11, 22, 12, tzinfo=UTC))


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "after_noon"),
    [
        ("2026-11-22 12:00:00+00", 0),
        ("2026-11-22 12:00:00.123456+00", 0.123456),
        ("2026-11-22 12:00:00.5+00", 0.5),
        ("2026-11-22 17:30:00+05:30", 0),
        ("2026-11-22 12:19:32+00:19:32", 0),
        ("2026-11-22 04:00:01-08", 1),
        ("2026-11-22T12:00:00Z", 0),
        ("2026-11-22T12:00:00.250 UTC", 0.25),
        ("2026-11-22 12:00 UTC", 0),
        ("20261122T120000Z", 0),
        ("2026-11-22 13:00:00.001", 0.001),
        ("2026-11-22", -13 * 3600),
        ("2026-07-22 14:00", -123 * 86400),  # summer time
    ],
)
def test_what_people_write(text: str, after_noon: float) -> None:
    assert timestamps.parse(text) - NOON == round(after_noon * 1_000_000)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "12:00", "2026-11-22 25:00", "2026-13-01", "2026-11-22 12:00 PST",
             "1/2/2026", "infinity", "0001-01-01", "9999-12-31 23:59:59-01", "now()"],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time such as 2026"):
        timestamps.parse(text)


def test_now() -> None:
    before = datetime.now(UTC)
    assert timedelta(0) <= timedelta(
        microseconds=timestamps.parse("Now") - timestamp.from_datetime(before)
    ) < timedelta(seconds=60)  # fmt: skip


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "2000-01-01 00:00:00+00"),
        (-1, "1999-12-31 23:59:59.999999+00"),
        (100, "2000-01-01 00:00:00.0001+00"),
        (NOON + 120_000, "2026-11-22 12:00:00.12+00"),
        (2**63 - 1, "9223372036854775807 microseconds after 2000"),
    ],
)
def test_what_is_shown(microseconds: int, text: str) -> None:
    assert timestamp.show(microseconds) == text
    if microseconds < 2**62:
        assert timestamps.parse(text) == microseconds


def test_seconds_of_unix() -> None:
    assert timestamp.from_unix_seconds(946_684_801) == 1_000_000
