"""`layertool draw`: what of a directory is drawn, and that any number of layers fits."""

import random
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.storage import Storage
from formats import chunk, chunk_filter, layer_bits
from formats.manifest_record import LayersRemoved, LeaseSet, PointSet, Progress
from tests.fixtures import bundles
from tests.fixtures.stopped_directory import REL, StoppedDirectory, fill
from tools import layer_svg
from tools.layer_draw import Layer, draw_layers, read_drawing
from tools.layer_svg import Drawing, Mark, Rectangle, svg
from tools.layertool import app

NAMESPACE = "{http://www.w3.org/2000/svg}"
SVG_BYTES_MAX = 500_000


@pytest.fixture
def directory(tmp_path: Path) -> StoppedDirectory:
    directory = StoppedDirectory(tmp_path / "data")
    fill(directory)
    directory.index.close()
    return directory


def drawn(directory: StoppedDirectory, chunks: str = "all") -> Drawing:
    return read_drawing(Storage(), directory.root, chunk_filter.parse(chunks))


def kinds(drawing: Drawing) -> list[str]:
    return [each.kind for each in drawing.rectangles]


def texts(document: str) -> list[str]:
    tree = ElementTree.fromstring(document)
    return ["".join(element.itertext()) for element in tree.iter(f"{NAMESPACE}text")]


# What is drawn ------------------------------------------------------------------------------------


def test_layers_of_a_directory(directory: StoppedDirectory) -> None:
    drawing = drawn(directory)
    # The base backup has three stripes of the relation and its history.
    assert (kinds(drawing).count("image"), kinds(drawing).count("L0")) == (4, 7)
    assert drawing.columns == 5
    names = [drawing.names[column] for column in sorted(drawing.names)]
    assert names == [
        REL.name, "history:rel:1663/5/16384/main", "history:rel:1663/5/16385/main",
    ]  # fmt: skip
    delta = next(each for each in drawing.rectangles if each.kind == "L0" and each.column == 0)
    assert (delta.lsn_start, delta.lsn_end) == (110, 111)
    assert delta.text == f"{REL.name} stripe 0, L0, 0/6E … 0/6E, 1 versions"


def test_removed_layers_and_foreign_chunks_are_not_drawn(directory: StoppedDirectory) -> None:
    count = len(drawn(directory).rectangles)
    rows = layer_bits.of_rows([0])
    directory.manifest.append(LayersRemoved(bundles.l0(2).text, rows), Progress(horizon_lsn=120))
    drawing = drawn(directory)
    assert len(drawing.rectangles) == count - 1
    assert drawing.horizon == 120
    some = drawn(directory, "rel:1663/5/16385")
    assert set(some.names.values()) == {"history:rel:1663/5/16385/main"}


def test_points_and_leases_are_marked(directory: StoppedDirectory) -> None:
    directory.manifest.append(PointSet("before", 115), LeaseSet("nightly", 117, 1 << 40))
    drawing = drawn(directory)
    assert sorted(drawing.marks) == [("lease", 117, "nightly"), ("point", 115, "before")]
    shown = texts(svg(drawing))
    assert {"before", "nightly", "1 point", "1 lease"} <= set(shown)
    titles = [each.text for each in ElementTree.fromstring(svg(drawing)).iter(f"{NAMESPACE}title")]
    assert {"point before at 0/73", "lease nightly at 0/75"} <= set(titles)


def test_any_number_of_marks() -> None:
    marks = [Mark("lease", lsn, f"<{lsn}>" * 30) for lsn in range(1000, 21_000)]
    document = svg(Drawing("", [Rectangle("L1", 0, 0, 50_000, "")], {}, 1, 0, marks))
    assert len(document) < SVG_BYTES_MAX
    shown = texts(document)
    names = [text for text in shown if text.startswith("<")]
    assert all(len(name) <= layer_svg.MARK_LENGTH_MAX for name in names)
    assert 10 < len(names) < layer_svg.DOWN / layer_svg.MARK_GAP + 1
    assert f"{20_000 - len(names):,} names left out" in shown
    assert "20,000 leases" in shown


# As SVG -------------------------------------------------------------------------------------------


def test_every_layer_has_a_box_with_its_title(directory: StoppedDirectory) -> None:
    drawing = drawn(directory)
    tree = ElementTree.fromstring(svg(drawing))
    titles = [element.text for element in tree.iter(f"{NAMESPACE}title")]
    assert sorted(filter(None, titles)) == sorted(each.text for each in drawing.rectangles)
    shown = texts(svg(drawing))
    assert {"L0: 7 layers", "image: 4 layers", "L1: 0 layers"} <= set(shown)
    assert "5 stripes of 3 chunks" in shown


def test_where_a_layer_lies() -> None:
    rectangles = [Rectangle("L1", 0, 0, 50, "old"), Rectangle("L1", 1, 50, 100, "new")]
    tree = ElementTree.fromstring(svg(Drawing("", rectangles, {}, 2, horizon=50)))
    boxes = {
        title.text: {name: int(box.attrib[name]) for name in ("x", "y", "width", "height")}
        for box in tree.iter(f"{NAMESPACE}rect")
        for title in box
    }
    left, top, down = layer_svg.LEFT, layer_svg.TOP, layer_svg.DOWN
    width = layer_svg.ACROSS // 2 - 1
    half = down // 2
    assert boxes["old"] == {"x": left, "y": top + half, "width": width, "height": half - 1}
    assert boxes["new"] == {"x": left + width + 1, "y": top, "width": width, "height": half - 1}
    assert "horizon 0/32" in texts(svg(Drawing("", rectangles, {}, 2, horizon=50)))


def test_text_of_others_is_escaped() -> None:
    drawing = Drawing("a<b>&", [Rectangle("L0", 0, 1, 2, "<&>")], {0: "<name>"}, 1)
    assert {"a<b>&", "<name>"} <= set(texts(svg(drawing)))


def test_nothing_to_draw() -> None:
    assert "0 stripes of 0 chunks" in texts(svg(Drawing("empty", [], {}, 0)))


def synthetic(layers: int, stripes: int) -> list[Layer]:
    """Deltas and images of many relations, as random as they can be."""
    generator = random.Random(1)
    found: list[Layer] = []
    for number in range(layers):
        key = chunk.relation(1663, 5, 16384 + number % stripes, 0).pack()
        kind = generator.choice(("L1", "L1", "L1", "image", "L0"))
        start = generator.randrange(1 << 34)
        length = 1 if kind == "image" else generator.randrange(1, 1 << 31)
        found.append((key, 0, kind, start, start + length, 1))
    return found


@pytest.mark.parametrize("stripes", [10, 300, 1000, 10_000])
def test_ten_thousand_layers(stripes: int) -> None:
    document = svg(draw_layers("many", synthetic(10_000, stripes), horizon=1 << 33))
    assert len(document) < SVG_BYTES_MAX
    assert f"{stripes:,} stripes of {stripes:,} chunks" in " ".join(texts(document))


def test_cells_are_as_dark_as_layers_are_many() -> None:
    drawing = Drawing("", [Rectangle("L1", n % 10, 0, 10, "") for n in range(5000)], {}, 10)
    tree = ElementTree.fromstring(svg(drawing))
    colour = layer_svg.COLOURS["L1"]
    (path,) = [each for each in tree.iter(f"{NAMESPACE}path") if each.get("stroke") == colour]
    assert path.get("stroke-opacity") == "0.95"
    rows = path.attrib["d"].split("M")[1:]
    assert len(rows) == layer_svg.DOWN // layer_svg.CELL
    assert set(row.partition("h")[2] for row in rows) == {str(layer_svg.ACROSS)}


# As a command -------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["draw", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_the_command(directory: StoppedDirectory, tmp_path: Path) -> None:
    status, text, _ = run(directory.root)
    assert status == 0
    assert text == svg(drawn(directory))
    output = tmp_path / "drawing.svg"
    assert run(directory.root, "-o", output, "--chunk", "rel:1663/5/16385") == (0, "", "")
    assert output.read_text(encoding="utf-8") == svg(drawn(directory, "rel:1663/5/16385"))


def test_wrong_usage(directory: StoppedDirectory, tmp_path: Path) -> None:
    assert run(tmp_path)[::2] == (2, f"layertool: not a data directory: {tmp_path}\n")
    status, _, error = run(directory.root, "--chunk", "nothing")
    assert status == 2
    assert "nothing" in error


def test_damage_is_named(directory: StoppedDirectory) -> None:
    file = directory.layers / bundles.l0(2).text
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    status, _, error = run(directory.root)
    assert status == 1
    assert file.name in error
