"""Times as people write them.

2026-11-22 14:03:07.123456+00      PostgreSQL's output, and any ISO 8601 that Python reads
2026-11-22T14:03:07Z               with its zone as Z, UTC, +HH, +HH:MM or +HH:MM:SS
2026-11-22 14:03:07.123 UTC        as in PostgreSQL's log, if that is in UTC
2026-11-22 14:03, 2026-11-22       without a zone: local time of the process that reads it
now
"""

from datetime import UTC, datetime

from formats import timestamp

FORMS = "2026-11-22 14:03:07.123456+00, another ISO 8601 time, or now"


def parse(text: str) -> int:
    """Microseconds since 2000; ValueError says what was expected."""
    if text.lower() == "now":
        return timestamp.from_datetime(datetime.now(UTC))
    iso = text[:-4] + "Z" if text.endswith(" UTC") else text
    try:
        moment = datetime.fromisoformat(iso).astimezone(UTC)  # what has no zone is local
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r}: expected a time such as {FORMS}") from None
    return timestamp.from_datetime(moment)
