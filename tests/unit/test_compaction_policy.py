"""What the policy of compaction promises, whatever the sizes."""

import math
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.compaction_policy import Policy

MIB = 1 << 20
DOCUMENT = Path(__file__).parents[2] / "docs" / "compaction.md"
POLICY = Policy()

sizes = st.integers(1, 1 << 40)


def merged(policy: Policy, newest_first: Sequence[int], incoming: int) -> list[int]:
    """A stripe's layers after a merge of L0."""
    count = policy.layers_to_merge(newest_first, incoming)
    assert 0 <= count <= len(newest_first)
    return [incoming + sum(newest_first[:count]), *newest_first[count:]]


def written(policy: Policy, arrivals: Sequence[int]) -> int:
    layers: list[int] = []
    total = 0
    for incoming in arrivals:
        layers = merged(policy, layers, incoming)
        assert len(layers) <= policy.layers_max
        total += layers[0]
    assert sum(layers) == sum(arrivals)
    return total


# L0 -----------------------------------------------------------------------------------------------


def test_l0_waits_for_some_and_takes_the_oldest() -> None:
    assert [POLICY.l0_to_merge([MIB] * count) for count in (0, 2, 3, 7, 10, 30)] == [
        0, 0, 3, 7, 10, 10,
    ]  # fmt: skip


def test_l0_of_a_job_is_bounded_by_bytes_but_a_job_takes_one() -> None:
    bound = POLICY.l0_bytes_merged_max
    assert POLICY.l0_to_merge([bound // 2] * 5) == 2
    assert POLICY.l0_to_merge([bound * 2, 1, 1, 1]) == 1
    assert POLICY.l0_to_merge([1, 1, 1, bound]) == 3


@given(st.lists(sizes, max_size=40))
def test_l0_is_merged_sooner_or_later(l0_bytes: list[int]) -> None:
    count = POLICY.l0_to_merge(l0_bytes)
    assert (count == 0) == (len(l0_bytes) < POLICY.l0_bundles_merged_min)
    assert count <= POLICY.l0_bundles_merged_max
    assert count <= 1 or sum(l0_bytes[:count]) <= POLICY.l0_bytes_merged_max


def test_ingest_slows_before_it_waits_and_long_after_a_merge_is_due() -> None:
    slow = [count for count in range(40) if POLICY.is_behind(count)]
    waits = [count for count in range(40) if POLICY.must_wait(count)]
    assert POLICY.l0_bundles_merged_max < slow[0] < waits[0]
    assert slow == list(range(slow[0], 40)) and waits == list(range(waits[0], 40))


# Layers of a stripe -------------------------------------------------------------------------------


@given(st.lists(sizes, max_size=200))
def test_layers_never_exceed_their_bound(arrivals: list[int]) -> None:
    written(POLICY, arrivals)


@given(st.lists(sizes, max_size=40), sizes)
def test_too_many_layers_become_few_at_once(newest_first: list[int], incoming: int) -> None:
    assert len(merged(POLICY, newest_first, incoming)) <= max(
        POLICY.layers_max, len(newest_first) + 1 - POLICY.layers_to_merge(newest_first, incoming)
    )
    if len(newest_first) > POLICY.layers_max:
        assert len(merged(POLICY, newest_first, incoming)) <= POLICY.layers_max


@given(st.lists(sizes, max_size=5), sizes)
def test_nothing_is_merged_while_there_is_room(newest_first: list[int], incoming: int) -> None:
    assert POLICY.layers_to_merge(newest_first, incoming) == 0


def newest_component(arrivals: int, layers: int) -> int:
    """Size of the newest layer after so many arrivals of size 1, in the k-binomial transform: the
    numbers C(d + i - 1, i), i falling from k, that add up to the arrivals, each the largest."""
    size = 0
    for place in range(layers, 0, -1):
        if not arrivals:
            break
        depth = 1
        while math.comb(depth + place, place) <= arrivals:
            depth += 1
        size = math.comb(depth + place - 1, place)
        arrivals -= size
    return size


def least_times(arrivals: int, layers: int) -> float:
    """How often a byte is written on average, at least, with so many arrivals of one size."""
    return sum(newest_component(n, layers) for n in range(1, arrivals + 1)) / arrivals


def test_the_least() -> None:
    assert [newest_component(n, 2) for n in range(1, 11)] == [1, 1, 3, 1, 2, 6, 1, 2, 3, 10]
    assert least_times(6, 6) == 1.0
    assert least_times(209, 6) == pytest.approx(4 * 6 / 7, 0.02)


def test_the_document_has_the_least() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    (arrivals,) = re.findall(r"^\| merges between two images \| (.*) \|$", text, re.MULTILINE)
    (times,) = re.findall(r"^\| times a byte is merged at least \| (.*) \|$", text, re.MULTILINE)
    numbers = [int(cell.replace(",", "")) for cell in arrivals.split(" | ")]
    layers = POLICY.layers_max
    assert [f"{least_times(n, layers):.1f}" for n in numbers] == times.split(" | ")


@settings(max_examples=30)
@given(
    st.integers(0, 1 << 30), st.sampled_from((20, 100, 500, 2000)), st.floats(0, 1.2),
    st.integers(1, 1 << 30),
)  # fmt: skip
def test_what_is_written_is_near_the_least_possible(
    seed: int, jobs: int, spread: float, size: int
) -> None:
    generator = random.Random(seed)
    arrivals = [1 + int(size * generator.lognormvariate(0, spread)) for _ in range(jobs)]
    times = written(POLICY, arrivals) / sum(arrivals)
    assert times <= 1.5 * least_times(jobs, POLICY.layers_max) + 0.5


def test_binomial_merging_of_equal_sizes() -> None:
    policy = Policy(layers_max=2)
    layers: list[int] = []
    seen = []
    for _ in range(10):
        layers = merged(policy, layers, 1)
        seen.append(tuple(layers))
    assert seen == [
        (1,), (1, 1), (3,), (1, 3), (2, 3), (6,), (1, 6), (2, 6), (3, 6), (10,),
    ]  # fmt: skip


def test_stripes_that_are_loaded_alike_do_not_merge_all_in_the_same_job() -> None:
    generator = random.Random(1)
    stripes: list[list[int]] = [[] for _ in range(200)]
    most = 0.0
    total = 0
    for _ in range(300):
        job = 0
        for number, layers in enumerate(stripes):
            stripes[number] = merged(POLICY, layers, round(generator.gauss(10_000, 100)))
            job += stripes[number][0]
        total += job
        most = max(most, job)
    assert most < 12 * total / 300


# Images -------------------------------------------------------------------------------------------


@given(
    st.integers(0, 1 << 33), st.integers(0, 1 << 24), st.integers(0, 1 << 30),
    st.integers(0, 16384), st.integers(0, 1 << 33), st.integers(0, 1 << 24),
)  # fmt: skip
def test_more_debt_never_needs_an_image_less(
    debt: int, versions: int, image: int, blocks: int, more_bytes: int, more_versions: int
) -> None:
    if POLICY.needs_image(debt, versions, image, blocks):
        assert POLICY.needs_image(debt + more_bytes, versions + more_versions, image, blocks)
        if image:
            assert POLICY.needs_image(debt, versions, max(1, image // 2), blocks)


def test_an_image_comes_at_twice_its_size_or_by_the_number_of_versions() -> None:
    image = 40 * MIB
    assert not POLICY.needs_image(2 * image - 1, 0, image, 16384)
    assert POLICY.needs_image(2 * image, 0, image, 16384)
    assert not POLICY.needs_image(0, 128 * 16384 - 1, image, 16384)
    assert POLICY.needs_image(0, 128 * 16384, image, 16384)


def test_without_an_image_its_size_is_estimated_and_the_smallest_debt_is_none() -> None:
    assert not POLICY.needs_image(64 * MIB - 1, 1, 0, 16384)
    assert POLICY.needs_image(64 * MIB, 1, 0, 16384)
    assert not POLICY.needs_image((64 << 10) - 1, 127, 0, 1)
    assert POLICY.needs_image(64 << 10, 1, 0, 1)


# Files --------------------------------------------------------------------------------------------


def test_a_generation_ends_when_less_than_half_of_it_would_be_left() -> None:
    assert not POLICY.is_worth_ending(MIB, MIB, 500, 500)
    assert POLICY.is_worth_ending(MIB + 1, MIB, 500, 500)
    assert not POLICY.is_worth_ending(3 * MIB, MIB, 500, 1000)  # the new one will be larger
    assert POLICY.is_worth_ending(3 * MIB + 1, MIB, 500, 1000)
    assert not POLICY.is_worth_ending(64 * MIB, 0, 0, 16384)  # 2 KiB a block: there is none yet
    assert POLICY.is_worth_ending(64 * MIB + 1, 0, 0, 16384)
    assert not POLICY.is_worth_ending((64 << 10) - 1, 100, 1, 1)


def test_files() -> None:
    assert not POLICY.wants_own_file(MIB - 1) and POLICY.wants_own_file(MIB)
    assert POLICY.is_worth_rewriting(49, 100) and not POLICY.is_worth_rewriting(50, 100)
    assert not POLICY.is_worth_rewriting(0, 100), "it goes without being rewritten"
    assert POLICY.is_worth_pruning(50, 100) and not POLICY.is_worth_pruning(49, 100)


@pytest.mark.parametrize("field", ["layers_max", "debt_per_image_byte"])
def test_the_numbers_are_frozen(field: str) -> None:
    with pytest.raises(AttributeError):
        setattr(POLICY, field, 1)
