"""The difference of two manifests, applied to the one, gives the other; or there is none."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from formats.file_name import FileKind, FileName
from formats.manifest import Manifest
from formats.manifest_difference import LSNS as LSN_NAMES
from formats.manifest_difference import difference
from formats.manifest_record import (
    BundleSettled,
    EndsAt,
    FileAdded,
    FileRemoved,
    FileUploaded,
    Identity,
    LayersRemoved,
    LeaseDropped,
    LeaseSet,
    Opened,
    PointDropped,
    PointSet,
    Progress,
    Record,
    TimelineSwitch,
)

IDENTITIES = [Identity(c * 32, "b" * 32, 7, 180006, 16 << 20) for c in "ac"]
NAMES = [FileName(kind, 0, 1, n).text for kind in FileKind for n in range(3)]
ADDED = FileAdded(NAMES[0], 1, 1, 1, 1)
LSNS = st.integers(0, 5)
OPTIONAL_LSNS = st.none() | LSNS
WORDS = st.sampled_from("pqr")
RECORDS = st.one_of(
    st.builds(Opened, st.integers(0, 4)),
    st.builds(FileAdded, st.sampled_from(NAMES), *[st.integers(0, 1)] * 4),
    st.builds(FileRemoved, st.sampled_from(NAMES)),
    st.builds(LayersRemoved, st.sampled_from(NAMES), st.binary(max_size=2)),
    st.builds(BundleSettled, st.sampled_from(NAMES)),
    st.builds(FileUploaded, st.sampled_from(NAMES), st.integers(1, 2)),
    st.builds(Progress, OPTIONAL_LSNS, OPTIONAL_LSNS, OPTIONAL_LSNS, OPTIONAL_LSNS),
    st.builds(TimelineSwitch, st.integers(1, 3), LSNS),
    st.builds(PointSet, WORDS, LSNS),
    st.builds(PointDropped, WORDS),
    st.builds(LeaseSet, WORDS, LSNS, LSNS),
    st.builds(LeaseDropped, WORDS),
    st.builds(EndsAt, LSNS),
)
HISTORIES = st.lists(RECORDS, max_size=40)


def apply(manifest: Manifest, records: list[Record]) -> Manifest:
    """Those that can follow; the others are left out."""
    for record in records:
        before = manifest.copy()
        try:
            manifest.apply(record)
        except ValueError:
            manifest = before
    return manifest


def without_uploads(manifest: Manifest) -> Manifest:
    copy = manifest.copy()
    copy.uploaded.clear()
    return copy


def check(before: Manifest, after: Manifest) -> list[Record]:
    """The difference, applied: and what is uploaded of the files that stay is not forgotten."""
    records = difference(before, after)
    found = before.copy()
    for record in records:
        found.apply(record)
    assert without_uploads(found) == without_uploads(after)
    stay = {name: epoch for name, epoch in before.uploaded.items() if name in after.files}
    assert found.uploaded == stay
    return records


@given(HISTORIES, HISTORIES)
def test_what_came_of_it(first: list[Record], then: list[Record]) -> None:
    before = Manifest(identity=IDENTITIES[0])
    before = apply(before, first)
    known = set(before.files)
    then = [r for r in then if not (isinstance(r, FileAdded) and FileName.parse(r.name) in known)]
    after = apply(before.copy(), then)
    if after.timelines == before.timelines:
        for name in LSN_NAMES:
            setattr(after, name, max(getattr(before, name), getattr(after, name)))
    records = check(before, after)
    assert len(records) <= len(then), "no more than what happened"
    assert difference(after, after) == []
    check(Manifest(), after)


@given(HISTORIES, HISTORIES)
@example([ADDED, LayersRemoved(NAMES[0], b"")], [ADDED])
def test_of_any_two_there_is_a_right_one_or_none(first: list[Record], then: list[Record]) -> None:
    before, after = (apply(Manifest(identity=IDENTITIES[0]), h) for h in (first, then))
    try:
        difference(before, after)
    except ValueError:
        return
    check(before, after)


@pytest.mark.parametrize(
    ("why", "before", "after"),
    [
        ("run 3 became run 2", [Opened(3)], [Opened(2)]),
        ("became FileAdded", [ADDED], [FileAdded(NAMES[0], 1, 1, 1, 2)]),
        ("came back", [ADDED, LayersRemoved(NAMES[0], b"\3")],
         [ADDED, LayersRemoved(NAMES[0], b"\1")]),
        ("came back", [ADDED, LayersRemoved(NAMES[0], b"\3")], [ADDED]),
        ("settled no more", [ADDED, BundleSettled(NAMES[0])], [ADDED]),
        ("timelines", [TimelineSwitch(2, 5)], []),
        ("timelines", [TimelineSwitch(2, 5)], [TimelineSwitch(2, 4), TimelineSwitch(3, 5)]),
        ("goes on", [EndsAt(5)], []),
        ("durable_lsn 5 became 4", [Progress(durable_lsn=5)], [Progress(durable_lsn=4)]),
        ("horizon_lsn 5 became 0", [Progress(horizon_lsn=5)], []),
    ],
)  # fmt: skip
def test_what_did_not_come_of_it_is_refused(
    why: str, before: list[Record], after: list[Record]
) -> None:
    manifests = [Manifest(identity=IDENTITIES[0]) for _ in range(2)]
    for manifest, records in zip(manifests, (before, after), strict=True):
        for record in records:
            manifest.apply(record)
    with pytest.raises(ValueError, match=why):
        difference(*manifests)


def test_another_identity_is_refused() -> None:
    one, other = (Manifest(identity=identity) for identity in IDENTITIES)
    for before, after in ((one, other), (one, Manifest())):
        with pytest.raises(ValueError, match="became that of"):
            difference(before, after)
    assert difference(Manifest(), one) == [IDENTITIES[0]]
