"""formats/coding both ways: the functions of coding.py and the bodies in coding.pxd.

A kernel that cimports coding gets the bodies in coding.pxd, which Python cannot call. So a kernel
is built here that does nothing but call them, and every test runs over it and over coding.py as
Python sees it. Integers are tried with all ones and with the top bit alone: that is where C's and
Python's arithmetic part.
"""

import importlib.util
import itertools
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from formats import coding

ROOT = Path(__file__).resolve().parents[2]
WIDTHS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "be16": 2, "be32": 4, "be64": 8}
CHECKED_BEFORE = ("u32", "u64")
RUNS = {
    "copy": "uint8_t[::1] a, Py_ssize_t i, const uint8_t[::1] b, Py_ssize_t j, Py_ssize_t n",
    "move": "uint8_t[::1] a, Py_ssize_t i, Py_ssize_t j, Py_ssize_t n",
    "fill": "uint8_t[::1] a, Py_ssize_t i, Py_ssize_t n, int value",
    "prefetch": "const uint8_t[::1] a, Py_ssize_t i",
    "equal": "const uint8_t[::1] a, Py_ssize_t i, const uint8_t[::1] b, Py_ssize_t j, Py_ssize_t n",
}


def kernel_source() -> str:
    lines = ["from libc.stdint cimport int64_t, uint8_t, uint64_t", "from formats cimport coding"]
    for name in WIDTHS:
        lines += [
            f"def {name}(const uint8_t[::1] view, Py_ssize_t pos):",
            f"    return coding.{name}(view, pos)",
            f"def put_{name}(uint8_t[::1] view, Py_ssize_t pos, uint64_t value):",
            f"    return coding.put_{name}(view, pos, value)",
        ]
    for name in CHECKED_BEFORE:
        lines += [
            f"def {name}_checked_before(const uint8_t[::1] view, Py_ssize_t pos):",
            f"    return coding.{name}_checked_before(view, pos)",
            f"def put_{name}_checked_before(uint8_t[::1] view, Py_ssize_t pos, uint64_t value):",
            f"    coding.put_{name}_checked_before(view, pos, value)",
        ]
    lines += [
        "def f64(const uint8_t[::1] view, Py_ssize_t pos):",
        "    return coding.f64(view, pos)",
        "def put_f64(uint8_t[::1] view, Py_ssize_t pos, double value):",
        "    return coding.put_f64(view, pos, value)",
    ]
    for name, signature in RUNS.items():
        arguments = ", ".join(part.split()[-1] for part in signature.split(","))
        lines += [f"def {name}({signature}):", f"    return coding.{name}({arguments})"]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coding")
    source = folder / "coding_bodies.pyx"
    source.write_text(kernel_source())
    c_file = source.with_suffix(".c")
    subprocess.run(
        [sys.executable, "-m", "cython", "-3", source, "-I", ROOT, "-o", c_file], check=True
    )
    library = folder / ("coding_bodies" + sysconfig.get_config_var("EXT_SUFFIX"))
    compiler = sysconfig.get_config_var("CC").split()
    include = sysconfig.get_path("include")
    subprocess.run(
        [*compiler, "-O1", "-fPIC", "-shared", "-I", include, c_file, "-o", library], check=True
    )
    spec = importlib.util.spec_from_file_location("coding_bodies", library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["functions", "bodies"])
def way(request):
    return coding if request.param == "functions" else request.getfixturevalue("kernel")


def integers(width: int) -> list[int]:
    bits = 8 * width
    return [
        0,
        1,
        0x7F,
        (1 << bits) - 1,
        1 << (bits - 1),
        (1 << (bits - 1)) - 1,
        int.from_bytes(bytes(range(0x81, 0x81 + width)), "big"),
    ]


@pytest.mark.parametrize("name", WIDTHS)
def test_integers_both_ways(way, name):
    width = WIDTHS[name]
    order = "big" if name.startswith("be") else "little"
    for value, pos in itertools.product(integers(width), (0, 1, 3)):
        buffer = bytearray(b"\xa5" * 16)
        assert getattr(way, "put_" + name)(memoryview(buffer), pos, value) == 0
        assert buffer[pos : pos + width] == value.to_bytes(width, order)
        assert buffer[:pos] + buffer[pos + width :] == b"\xa5" * (16 - width)
        assert getattr(way, name)(memoryview(buffer), pos) == value


@pytest.mark.parametrize("name", CHECKED_BEFORE)
def test_integers_checked_before(way, name):
    width = WIDTHS[name]
    for value, pos in itertools.product([*integers(width), 5 << 8 * width | 3], (0, 1, 3)):
        buffer = bytearray(b"\xa5" * 16)
        getattr(way, f"put_{name}_checked_before")(memoryview(buffer), pos, value & ((1 << 64) - 1))
        kept = value % (1 << 8 * width)
        assert buffer[pos : pos + width] == kept.to_bytes(width, "little")
        assert buffer[:pos] + buffer[pos + width :] == b"\xa5" * (16 - width)
        assert getattr(way, f"{name}_checked_before")(memoryview(buffer), pos) == kept


@pytest.mark.parametrize("name", WIDTHS)
def test_all_ones(way, name):
    assert getattr(way, name)(memoryview(b"\xff" * 8), 0) == (1 << 8 * WIDTHS[name]) - 1


@pytest.mark.parametrize("name", WIDTHS)
def test_too_large_values_keep_their_low_bits(way, name):
    buffer = bytearray(8)
    getattr(way, "put_" + name)(memoryview(buffer), 0, (1 << 64) - 2)
    assert getattr(way, name)(memoryview(buffer), 0) == (1 << 8 * WIDTHS[name]) - 2


@pytest.mark.parametrize("name", WIDTHS)
def test_integers_check_bounds(way, name):
    width = WIDTHS[name]
    for size in range(10):
        buffer = memoryview(bytearray(size))
        for pos in (-9, -1, *range(max(0, size - width + 1), size + 2), 1 << 61):
            with pytest.raises(IndexError, match="read of .* out of bounds"):
                getattr(way, name)(buffer, pos)
            with pytest.raises(IndexError, match="write of .* out of bounds"):
                getattr(way, "put_" + name)(buffer, pos, 0)
        if size >= width:
            getattr(way, "put_" + name)(buffer, size - width, 1)
            assert getattr(way, name)(buffer, size - width) == 1


@pytest.mark.parametrize("value", [0.0, -1.0, 1e17, 0.1, float("inf")])
def test_doubles(way, value):
    buffer = bytearray(b"\xa5" * 10)
    assert way.put_f64(memoryview(buffer), 1, value) == 0
    assert buffer == b"\xa5" + struct.pack("<d", value) + b"\xa5"
    assert way.f64(memoryview(buffer), 1) == value


def test_doubles_check_bounds(way):
    for size, pos in ((8, 1), (8, -1), (7, 0), (0, 0), (8, 1 << 61)):
        buffer = memoryview(bytearray(size))
        with pytest.raises(IndexError, match="read of .* out of bounds"):
            way.f64(buffer, pos)
        with pytest.raises(IndexError, match="write of .* out of bounds"):
            way.put_f64(buffer, pos, 1.0)


def test_copy(way):
    target = bytearray(b"........")
    way.copy(memoryview(target), 2, memoryview(b"abcdef"), 1, 3)
    way.copy(memoryview(target), 8, memoryview(b"abcdef"), 6, 0)
    way.copy(memoryview(target), 5, memoryview(b"abcdef"), 3, 3)
    assert target == b"..bcddef"


@pytest.mark.parametrize(
    ("start", "target", "source", "length", "result"),
    [
        (b"abcdefgh", 2, 0, 6, b"ababcdef"),
        (b"abcdefgh", 0, 2, 6, b"cdefghgh"),
        (b"abcdefgh", 8, 8, 0, b"abcdefgh"),
        (b"abcdefgh", 3, 3, 5, b"abcdefgh"),
    ],
)
def test_move_of_ranges_that_overlap(way, start, target, source, length, result):
    buffer = bytearray(start)
    way.move(memoryview(buffer), target, source, length)
    assert buffer == result


def test_fill(way):
    buffer = bytearray(6)
    way.fill(memoryview(buffer), 1, 4, 0xFF)
    way.fill(memoryview(buffer), 6, 0, 7)
    assert buffer == b"\x00\xff\xff\xff\xff\x00"


def test_equal(way):
    a, b = memoryview(b"xxabcd"), memoryview(b"abce")
    assert way.equal(a, 2, b, 0, 3)
    assert not way.equal(a, 2, b, 0, 4)
    assert not way.equal(a, 1, b, 0, 3)
    assert way.equal(a, 6, b, 4, 0)


def outside(size: int) -> list[tuple[int, int]]:
    return [(-1, 1), (0, size + 1), (size, 1), (size + 1, 0), (0, -1), (1, size), (1 << 61, 2)]


def test_runs_check_bounds(way):
    buffer, other = memoryview(bytearray(8)), memoryview(bytearray(64))
    for pos, length in outside(8):
        with pytest.raises(IndexError, match="copy .*out of bounds"):
            way.copy(buffer, pos, other, 0, length)
        with pytest.raises(IndexError, match="copy .*out of bounds"):
            way.copy(other, 0, buffer, pos, length)
        with pytest.raises(IndexError, match="move .*out of bounds"):
            way.move(buffer, pos, 0, length)
        with pytest.raises(IndexError, match="move .*out of bounds"):
            way.move(buffer, 0, pos, length)
        with pytest.raises(IndexError, match="fill .*out of bounds"):
            way.fill(buffer, pos, length, 0)
        with pytest.raises(IndexError, match="comparison .*out of bounds"):
            way.equal(buffer, pos, other, 0, length)
        with pytest.raises(IndexError, match="comparison .*out of bounds"):
            way.equal(other, 0, buffer, pos, length)


def test_a_prefetch_may_lie_anywhere(way):
    """It changes nothing, and what lies outside is not touched."""
    buffer = memoryview(bytearray(b"x" * 300))
    for pos in (0, 100, 172, 173, 299, 300, -1, 1 << 61):
        assert way.prefetch(buffer, pos) == 0
    assert bytes(buffer) == b"x" * 300
