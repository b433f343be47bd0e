"""Bundle names: text and bytes, both ways, and what is refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.file_name import FileKind, FileName

number = st.integers(0, 0xFFFFFFFF)
names = st.builds(FileName, st.sampled_from(FileKind), number, number, number)


def test_text() -> None:
    assert FileName(FileKind.L0, 0, 3, 42).text == "l0-00000000-00000003-0000002a.bundle"
    assert FileName(FileKind.IMAGE, 1, 2, 3).text == "image-00000001-00000002-00000003.bundle"


@given(names, names)
def test_both_ways_and_in_order(a: FileName, b: FileName) -> None:
    assert FileName.parse(a.text) == a
    assert FileName.unpack(a.pack()) == a
    assert (a < b) == (a.pack() < b.pack())
    if a.kind == b.kind:
        assert (a < b) == (a.text < b.text)


@pytest.mark.parametrize(
    "text",
    ["", "l0", "l2-00000000-00000003-0000002a.bundle", "l0-0-3-2a.bundle",
     "l0-00000000-00000003-0000002A.bundle", "l0-00000000-00000003-0000002a.bundle.new"],
)  # fmt: skip
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="bundle"):
        FileName.parse(text)


@given(names)
def test_a_number_beyond_32_bits_has_no_packed_name(name: FileName) -> None:
    with pytest.raises(struct.error):
        name._replace(run=1 << 32).pack()
