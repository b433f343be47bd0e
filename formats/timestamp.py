"""Times as PostgreSQL counts and prints them: whole microseconds since 2000 (timestamptz)."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
UNIX_SECONDS_OF_EPOCH = 946_684_800


def from_datetime(moment: datetime) -> int:
    """`moment` knows its time zone."""
    return (moment - _EPOCH) // _MICROSECOND


def from_unix_seconds(seconds: int) -> int:
    return (seconds - UNIX_SECONDS_OF_EPOCH) * 1_000_000


def show(time: int) -> str:
    """As PostgreSQL prints it in UTC: `2026-11-22 14:03:07.1234+00`.

    Years above 9999, which only a broken clock has, stay numbers.
    """
    try:
        moment = _EPOCH + time * _MICROSECOND
    except OverflowError:
        return f"{time} microseconds after 2000"
    fraction = f".{moment.microsecond:06d}".rstrip("0") if moment.microsecond else ""
    return f"{moment:%Y-%m-%d %H:%M:%S}{fraction}+00"
