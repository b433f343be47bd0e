"""The benchmarks' own arithmetic: medians of ratios, bars, the JSON, counts of records."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tools.bench.row import Bar, Row, show, show_number, write_json

PAIRS = [(10.0, 4.0), (30.0, 10.0), (8.0, 8.0)]


def row(bar: Bar | None = None) -> Row:
    return Row.of_pairs("wal-decode", "rare images", "records/s", "peer", PAIRS, bar, ["a note"])


def test_ratio_is_the_median_of_ratios_not_the_ratio_of_medians() -> None:
    assert (row().ours, row().peer_value, row().ratio) == (10.0, 8.0, 2.5)


@pytest.mark.parametrize(
    ("bar", "verdict"),
    [
        (None, "no bar"),
        (Bar(2.5), "met"),
        (Bar(2.6), "MISSED"),
        (Bar(2.5, is_most=True), "met"),
        (Bar(2.4, is_most=True), "MISSED"),
    ],
)
def test_verdict(bar: Bar | None, verdict: str) -> None:
    assert row(bar).verdict == verdict


def test_a_row_without_a_peer_has_no_verdict() -> None:
    assert Row("freshness", "p50", 1.0, "ms", "", None, None, Bar(1)).verdict == "no bar"


def test_json_has_the_promised_fields(tmp_path: Path) -> None:
    path = tmp_path / "build" / "bench.json"
    write_json([row(Bar(2.0))], path)
    (entry,) = json.loads(path.read_text())
    promised = {name: entry[name] for name in ("name", "ours", "unit", "peer", "peer_value")}
    assert promised == {
        "name": "wal-decode",
        "ours": 10.0,
        "unit": "records/s",
        "peer": "peer",
        "peer_value": 8.0,
    }
    assert entry["ratio"] == 2.5
    assert (entry["bar"], entry["verdict"], entry["notes"]) == ("≥ 2", "met", ["a note"])


def test_the_table_says_which_bars_are_missed() -> None:
    output = StringIO()
    show([row(Bar(2.0)), row(Bar(3.0))], Console(file=output, width=120))
    text = output.getvalue()
    assert text.count("MISSED") == 1
    assert "wal-decode rare images: the bar is missed: 2.5, not ≥ 3" in text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (1234567.8, "1,234,568"), (2.4567, "2.46"), (0.0123, "0.0123")]
)
def test_numbers_are_shown_in_three_digits(value: float | None, text: str) -> None:
    assert show_number(value) == text
