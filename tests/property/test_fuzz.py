"""A bounded, seeded run of each fuzzed target (tools/fuzz), and of the machinery around it.

Compiled kernels get many inputs, interpreted ones a few; both make the same ones of a seed.
"""

import hashlib
import json
import mmap
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.kernel_modes import Mode, mode
from tools.fuzz import corpus, watch
from tools.fuzz.mutator import Mutator
from tools.fuzz.targets import TARGETS, build
from tools.fuzz.worker import run_inputs

COMPILED = mode("tools.fuzz.target") is not Mode.INTERPRETED
INPUTS = {"metadata": (3000, 300), "wal-stream": (10000, 12)}
INPUTS_OF_OTHERS = (50000, 60)
CORPUS_BYTES_MAX = 2_000_000
SEED = 7


def target(name: str) -> tuple[Any, dict[int, str]]:
    return build(name, memoryview(bytearray(8)).cast("Q"))


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_does_harm(name: str) -> None:
    """Any error but those that are documented would come out of `run`."""
    fuzzed, names = target(name)
    inputs = INPUTS.get(name, INPUTS_OF_OTHERS)[0 if COMPILED else 1]
    fuzzed.run(SEED, 0, inputs)
    outcomes = {names[i]: count for i, count in enumerate(fuzzed.outcomes) if count}
    accepted = sum(count for text, count in outcomes.items() if not text.startswith("fault"))
    assert sum(outcomes.values()) + sum(fuzzed.errors.values()) == inputs
    assert accepted >= inputs / 5, "inputs do not get deep"
    assert not any("not an input" in text for text in fuzzed.errors) or name == "metadata"
    if COMPILED:
        assert set(outcomes) == set(names.values()), "some of it is never reached"


@pytest.mark.parametrize("name", TARGETS)
def test_what_once_failed_does_not_fail_again(name: str) -> None:
    fuzzed, _ = target(name)
    for content in corpus.failures(name).values():
        fuzzed.run_input(content)


@pytest.mark.parametrize("name", TARGETS)
def test_an_input_follows_from_seed_and_index(name: str) -> None:
    fuzzed, _ = target(name)
    inputs = [fuzzed.input(SEED, index) for index in range(20)]
    again, _ = target(name)
    again.run(SEED, 3, 2)
    assert [again.input(SEED, index) for index in reversed(range(20))] == inputs[::-1]
    assert fuzzed.input(SEED + 1, 0) != inputs[0]
    assert len(set(inputs)) > 15


def test_compiled_and_interpreted_make_the_same_inputs() -> None:
    mutator = Mutator([b"first input", bytes(range(200)), b"\xff" * 50])
    digest = hashlib.sha256()
    for index in range(300):
        mutator.begin(SEED, index)
        mutator.load(mutator.below(3))
        for _ in range(6):
            mutator.change(0, mutator.length)
        at = mutator.below(mutator.length)
        mutator.resize(at, min(mutator.below(9), mutator.length - at), mutator.below(9))
        mutator.borrow(at, mutator.below(30), mutator.below(3), mutator.below(10))
        digest.update(mutator.content())
    assert digest.hexdigest()[:16] == "ac4034f298d0915f"


def test_the_mutator_keeps_its_bounds() -> None:
    with pytest.raises(ValueError, match="64 KiB"):
        Mutator([])
    mutator = Mutator([b"ab"])
    mutator.begin(1, 1)
    mutator.load(0)
    assert mutator.resize(1, 2, 5) == 0, "removes more than there is"
    assert mutator.resize(0, 0, 70000) == 0, "longer than an input may be"
    assert mutator.borrow(1, 9, 0, 0) == 1
    assert mutator.content() == b"aa"
    assert mutator.change(2, 2) == 0


def test_the_corpus_is_small_and_has_every_resource_manager() -> None:
    sizes = [path.stat().st_size for path in corpus.DIRECTORY.rglob("*") if path.is_file()]
    assert sum(sizes) < CORPUS_BYTES_MAX
    named = {name.split()[1].split("/")[0] for name in corpus.seeds("redo")}
    assert {"Heap", "Heap2", "Btree", "Hash", "Gin", "Gist", "SPGist", "BRIN", "Generic"} <= named
    majors = {int(name.split()[0]) for name in corpus.seeds("wal-stream")}
    assert majors == {14, 15, 16, 17, 18}


# The processes around a target --------------------------------------------------------------------


def test_a_child_reports_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "place"
    place.write_bytes(bytes(mmap.PAGESIZE))
    order = {"seed": SEED, "first": 10, "inputs": 30, "seconds": 60.0, "place": str(place)}
    run_inputs("image", order)
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["inputs"] == 30
    assert sum(report["accepted"].values()) + sum(report["errors"].values()) == 30
    assert int.from_bytes(place.read_bytes()[:8], "little") == 39


def failing_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Have children run this instead of tools/fuzz/worker.py."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setattr(watch.sys, "executable", str(script))


def test_a_crash_names_its_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_worker(tmp_path, monkeypatch, "echo it broke >&2; kill -SEGV $$")
    failure = watch.run("image", SEED, 0, 10, 60.0, lambda report: None)
    assert failure is not None
    assert failure.reason == "signal 11" and "it broke" in failure.text
    assert failure.command == f"python -m tools.fuzz image --seed {SEED} --first 0 --inputs 1"
    assert failure.input() == target("image")[0].input(SEED, 0)


def test_a_hang_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_worker(tmp_path, monkeypatch, "while :; do :; done")
    monkeypatch.setattr(watch, "HANG_SECONDS", 0.2)
    failure = watch.run("image", SEED, 0, 10, 60.0, lambda report: None)
    assert failure is not None and "hangs" in failure.reason


def test_waiting_for_ever_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_worker(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(watch, "WAIT_SECONDS", 0.3)
    failure = watch.run("image", SEED, 0, 10, 60.0, lambda report: None)
    assert failure is not None and "waits" in failure.reason


def test_what_failed_is_shrunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_worker(tmp_path, monkeypatch, 'grep -q bad "$4" && exit 1; exit 0')
    small = watch.shrink("image", b"x" * 40 + b"bad" + b"y" * 21, tmp_path)
    assert small.replace(b"\0", b"") == b"bad" and len(small) < 10
    assert watch.shrink("image", b"good", tmp_path) == b"good"
