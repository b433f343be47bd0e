"""The simulator's arithmetic, by cases small enough for a pencil; and that the tables of
docs/compaction.md are its."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.compaction_policy import Policy
from tools.compaction_simulator import report
from tools.compaction_simulator.__main__ import replaced
from tools.compaction_simulator.measured import Measured, percentile
from tools.compaction_simulator.plane import Layer, Plane, Stripe
from tools.compaction_simulator.simulation import Simulation
from tools.compaction_simulator.strategy import Leveled, NeonLegacy, Strategy, Tiered
from tools.compaction_simulator.workload import (
    DAY,
    IMAGE_BYTES_PER_BLOCK,
    MIB,
    WORKLOADS,
    Flush,
    Workload,
    pieces,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "compaction.md"


@dataclass(frozen=True, kw_only=True)
class Given(Workload):
    """So many flushes of one MiB and 100 versions to each stripe, a minute apart."""

    name: str = "given"
    says: str = ""
    stripes: int = 1
    stands_for: int = 1
    days: float = 1.0
    bytes_per_second: float = MIB / 60
    version_bytes: int = MIB // 100
    count: int = 4

    @property
    def flushes(self) -> int:
        return self.count

    def load(self, seed: int) -> Iterator[Flush]:
        for _ in range(self.count):
            yield Flush(60.0, {stripe: (MIB, 100) for stripe in range(self.stripes)}, {})


def run(load: Workload, strategy: Strategy | None = None) -> Measured:
    return Simulation(load, strategy or Strategy()).run()


# Files and layers ---------------------------------------------------------------------------------


def test_a_file_takes_its_space_until_its_last_layer_is_dead() -> None:
    plane = Plane(file_bytes=100)
    small, large, alone = (Layer(size, 1, 0, 1) for size in (30, 70, 50))
    plane.write([(small, False), (large, False), (alone, True)], "merge")
    assert small.file is large.file is not alone.file
    assert plane.bytes_stored == plane.written["merge"] == 150
    plane.kill(small)
    assert plane.bytes_stored == 150
    assert list(plane.dying) == [large.file]
    plane.kill(large)
    assert plane.bytes_stored == 50
    assert not plane.dying


def test_a_file_is_full_at_its_size() -> None:
    plane = Plane(file_bytes=100)
    layers = [Layer(60, 1, 0, 1) for _ in range(3)]
    plane.write([(layer, False) for layer in layers], "merge")
    assert layers[0].file is layers[1].file is not layers[2].file


def test_rewriting_moves_what_is_live() -> None:
    plane = Plane(file_bytes=100)
    dead, live = Layer(60, 1, 0, 1), Layer(30, 1, 0, 1)
    plane.write([(dead, False), (live, False)], "merge")
    old = live.file
    plane.kill(dead)
    assert old is not None
    plane.rewrite(old)
    assert live.file is not old
    assert plane.bytes_stored == plane.written["rewrite"] == 30
    assert not plane.dying


def test_a_read_looks_into_the_image_and_the_deltas_above_it() -> None:
    plane = Plane(file_bytes=100)
    stripe = plane.stripes[0] = Stripe(0, 8)
    stripe.debt = [Layer(1, 1, 0, 4), Layer(1, 1, 4, 8)]
    assert [stripe.layers_at(lsn) for lsn in (0, 3, 4, 7)] == [1, 1, 2, 2]
    plane.place_image(stripe, Layer(9, 0, 7, 8))
    assert [layer.lsn_end for layer in stripe.past] == [4, 8] and not stripe.debt
    stripe.debt = [Layer(1, 1, 8, 12)]
    assert [stripe.layers_at(lsn) for lsn in (3, 6, 7, 8)] == [1, 2, 1, 2]


def test_retention_keeps_all_above_the_image_at_the_horizon() -> None:
    plane = Plane(file_bytes=1)
    stripe = plane.stripes[0] = Stripe(0, 8)
    for lsn in (2, 5):
        delta, image = Layer(10, 1, lsn - 2, lsn + 1), Layer(100, 0, lsn, lsn + 1)
        plane.write([(delta, True), (image, True)], "merge")
        stripe.debt.append(delta)
        plane.place_image(stripe, image)
    plane.collect(horizon=1)
    assert plane.bytes_stored == 220, "there is no image at or below the horizon"
    plane.collect(horizon=4)
    assert plane.bytes_stored == 210, "the first delta is below the first image"
    plane.collect(horizon=5)
    assert plane.bytes_stored == 100


# Runs ---------------------------------------------------------------------------------------------


def test_each_byte_is_merged_once_while_there_is_room() -> None:
    measured = run(Given(count=20))
    assert measured.flushed == 20 * MIB
    # What came after the 18th waits for one more.
    assert measured.written == {"merge": 18 * MIB, "image": 0, "rewrite": 0}


def test_the_seventh_merge_takes_two_layers_along() -> None:
    measured = run(Given(count=22))
    assert measured.written["merge"] == (6 * 3 + 3 * 3) * MIB
    assert measured.amplification == 27 / 22


def test_an_image_at_twice_its_size() -> None:
    blocks = 4 * MIB // IMAGE_BYTES_PER_BLOCK
    measured = run(Given(count=10, n_blocks=blocks))
    assert measured.written["image"] == blocks * IMAGE_BYTES_PER_BLOCK
    assert measured.written["merge"] == 9 * MIB


def test_space_counts_images_deltas_and_what_is_dead() -> None:
    load = Given(count=10, n_blocks=4 * MIB // IMAGE_BYTES_PER_BLOCK)
    measured = run(load)
    assert measured.space[0] == 1.0
    image = load.image_bytes
    assert max(measured.space) == pytest.approx((10 * MIB + 2 * image) / (10 * MIB + image), 0.05)


def test_ingest_is_held_back_when_the_compactor_cannot_follow() -> None:
    load = Given(count=200, stands_for=2000, stripes=2)
    measured = run(load)
    policy = Policy()
    assert measured.seconds_slowed > 0
    assert policy.l0_bundles_behind <= max(measured.l0_counts) <= policy.l0_bundles_wait


def test_reads_see_l0_layers_and_the_image() -> None:
    measured = run(Given(count=3))
    assert set(measured.layers) <= {1, 2, 3}
    assert max(run(Given(count=400)).layers) >= Policy().layers_max + 1


def test_the_others_merge_as_they_are_known_to() -> None:
    assert Tiered().layers_to_merge([10, 10], 10) == 0
    assert Tiered().layers_to_merge([10, 10, 10], 10) == 3
    assert Tiered().layers_to_merge([10, 10, 10, 40, 40, 40], 10) == 6
    assert Tiered().layers_to_merge([10, 10, 10, 40, 160], 10) == 3
    assert Leveled().layers_to_merge([10, 100], 10) == 1
    assert Leveled().layers_to_merge([20, 100], 10) == 2
    assert Leveled().layers_to_merge([300], 10) == 0
    neon = NeonLegacy()
    assert neon.l0_to_merge([1] * 9) == 0 and neon.l0_to_merge([1] * 25) == 10


def test_a_layer_of_neon_spans_what_lies_between() -> None:
    simulation = Simulation(Given(stripes=3, count=11), NeonLegacy())
    simulation.run()
    assert [len(stripe.debt) for stripe in simulation.plane.stripes.values()] == [1, 1, 1]


# Loads --------------------------------------------------------------------------------------------


def test_pieces_of_a_range_of_blocks() -> None:
    assert list(pieces(16380, 32770)) == [(0, 16380, 16384), (1, 0, 16384), (2, 0, 2)]
    assert list(pieces(5, 5)) == []


@pytest.mark.parametrize("load", WORKLOADS, ids=lambda load: load.name)
def test_a_load_brings_what_it_says(load: Workload) -> None:
    seconds = stored = count = 0
    for flush in load.load(1):
        seconds += flush.seconds
        stored += sum(size for size, _ in flush.stripes.values())
        count += 1
        if count == 300:
            break
    assert stored / count == pytest.approx(load.flush_bytes / load.stands_for, rel=0.1)
    assert seconds / count == pytest.approx(load.flush_bytes / load.bytes_per_second)
    assert load.flushes == pytest.approx(load.days * DAY * count / seconds, rel=0.01)


def test_percentiles() -> None:
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([3], 0.99) == 3


# The document -------------------------------------------------------------------------------------


def rows_of(table: str) -> list[list[str]]:
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(rf"<!-- table: {table} -->\n((?:\|.*\n)+)", text)
    assert found, f"docs/compaction.md has no table {table}"
    lines = found[1].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("table", report.TABLES)
def test_the_document_has_every_row_of_a_table(table: str) -> None:
    rows = rows_of(table)[2:]
    names = [[load.name, strategy.name] for load, strategy in report.runs(table)]
    assert [row[:2] for row in rows] == names


@pytest.mark.parametrize("number", [0, 1, 3])
def test_the_document_says_what_the_simulator_prints(number: int) -> None:
    """Of the growing database, the smallest: the quickest rows there are."""
    row = report.row(report.runs("growth")[number])
    assert rows_of("growth")[2 + number] == [str(value) for value in row.values()]


def test_a_table_is_replaced_between_its_marks() -> None:
    old = "a\n<!-- table: growth -->\n| x |\n|---|\n| 1 |\n\nb\n"
    new = replaced(old, {"growth": [{"name": "y", "n": 2}]})
    assert new == "a\n<!-- table: growth -->\n| name | n |\n|------|--:|\n| y    | 2 |\n\nb\n"
    with pytest.raises(ValueError, match="no place for the table uniform"):
        replaced(old, {"uniform": [{"n": 2}]})
