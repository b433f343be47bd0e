"""What a soak run takes for broken, on made samples and a made server."""

import re
from random import Random

from rich.console import Console

from formats.file_name import FileKind
from server.client import PageServerError
from tests.fixtures.stopped_directory import REL as CHUNK
from tools.layer_stat import ChunkStat, DirectoryStat, FilesOfKind
from tools.soak_history import PAGES_PER_LSN, PageHistory
from tools.soak_samples import MIB, PROCESS_BYTES, Samples, resident_bytes

REL = (1663, 5, 16384, 0)


def stat(
    l0: int, merged: int, serial: int = 1, depths: dict[int, int] | None = None
) -> DirectoryStat:
    files = {
        FileKind.L0: FilesOfKind(1, l0, 0, l0),
        FileKind.L1: FilesOfKind(1, merged, 0, merged),
        FileKind.IMAGE: FilesOfKind(),
    }
    found = DirectoryStat(files, {}, serial, 0)
    chunk = ChunkStat()
    chunk.depths.update(depths or {1: 1})
    found.chunks[CHUNK] = chunk
    return found


def test_memory_above_its_budget_is_broken():
    samples = Samples(100 * MIB)
    samples.add_memory(1, 100 * MIB + PROCESS_BYTES)
    assert samples.broken == []
    samples.add_memory(2, 100 * MIB + PROCESS_BYTES + 1)
    assert len(samples.broken) == 1 and samples.broken[0].startswith("at 2 s: ")


def test_reads_that_may_look_into_too_many_layers_are_broken():
    samples = Samples(MIB)
    samples.add_layers(1, 0, stat(10, 0, depths={10: 99, 40: 1}))
    assert samples.broken == []
    samples.add_layers(2, 0, stat(10, 0, depths={10: 98, 11: 2}))
    assert len(samples.broken) == 1 and "11 layers" in samples.broken[0]


def test_amplification_goes_on_over_a_compaction_of_the_manifest():
    samples = Samples(MIB)
    samples.add_layers(1, 10, stat(100, 100))
    samples.add_layers(2, 20, stat(200, 300))
    samples.add_layers(3, 30, stat(50, 50, serial=9))
    last = samples.layers[-1]
    assert (last.l0_bytes_written, last.layer_bytes_written) == (250, 600)
    console = Console(width=160, record=True)
    console.print(samples.table(10))
    factors = re.findall(r"\d\.\d\d", console.export_text())
    assert factors == ["2.00", "2.00", "3.00", "2.50", "2.00", "2.40"]


class MadeServer:
    """As server.client.PageClient; pages are of one byte, their LSN and block."""

    def __init__(self) -> None:
        self.horizon = 0
        self.changed: set[int] = set()
        self.points: set[int] = set()

    def query(self, text: str) -> list[list[bytes]]:
        if text == "point list":
            return [[b"soak", b"0/%X" % lsn] for lsn in sorted(self.points)]
        verb, action, name, lsn = text.split()
        assert (verb, action, name) == ("point", "create", f"soak-{int(lsn[2:], 16):x}")
        self.points.add(int(lsn[2:], 16))
        return []

    def relations(self, lsn: int) -> list[tuple[int, int, int, int, int]]:
        return [(*REL, 1000), (1663, 5, 16385, 0, 0), (*REL[:3], 1, 9)]

    def status(self) -> dict[str, object]:
        return {"horizon_lsn": f"0/{self.horizon:X}"}

    def get_page(self, spc: int, db: int, rel: int, fork: int, block: int, lsn: int) -> bytes:
        assert (spc, db, rel, fork) == REL and block < 1000
        if lsn < self.horizon and lsn not in self.points:
            raise PageServerError(f"0/{lsn:X} is below the horizon 0/{self.horizon:X}")
        return b"%d %d" % (block, lsn + (lsn in self.changed))


def test_pages_that_are_answered_as_before():
    server, history = MadeServer(), PageHistory(Random(1))
    for lsn in (100, 200, 300):
        history.note(server, lsn, 0.0)
    history.points.clear()
    server.points.clear()
    history.read_again(server)
    assert history.differences == [] and 0 < history.pages_read_again <= 2 * PAGES_PER_LSN
    server.horizon = 250
    for lsn in (100, 200, 300):
        history.compare(server, lsn)
    assert history.lsns_expired == 2 and list(history.seen) == [300]
    assert history.differences == []


def test_points_keep_pages_below_the_horizon():
    server, history = MadeServer(), PageHistory(Random(1))
    for lsn in range(100, 120):
        history.note(server, lsn, 0.0)
    server.horizon = 200
    for lsn in list(history.seen):
        history.compare(server, lsn)
    assert history.points and set(history.points) == server.points == set(history.seen)
    assert history.lsns_expired == 20 - len(history.points) > 0 and history.differences == []
    server.points.clear()
    history.compare(server, min(history.points))
    assert history.differences


def test_points_that_were_made_just_before_a_directory_was_lost_may_be_lost() -> None:
    server, history = MadeServer(), PageHistory(Random(1))
    for lsn in range(100, 120):
        history.note(server, lsn, float(lsn))
    first, *_, last = sorted(history.points)
    server.points.remove(last)
    history.check_points(server, float(last))
    assert history.differences == [] and last not in history.points and last not in history.seen
    server.points.remove(first)
    history.check_points(server, first + 1.0)
    assert len(history.differences) == 1 and f"0/{first:X}" in history.differences[0]


def test_pages_that_are_answered_otherwise():
    server, history = MadeServer(), PageHistory(Random(2))
    history.note(server, 300, 0.0)
    server.changed.add(300)
    history.compare(server, 300)
    assert len(history.differences) == len(history.seen[300])


def test_an_error_above_the_horizon_is_a_difference():
    class Failing(MadeServer):
        def get_page(self, *place: int) -> bytes:
            raise PageServerError("it lies below the horizon, it says")

    history = PageHistory(Random(3))
    history.note(MadeServer(), 300, 0.0)
    history.compare(Failing(), 300)
    assert len(history.differences) == len(history.seen[300]) and history.lsns_expired == 0


def test_memory_of_a_process_that_is_gone():
    assert resident_bytes(1 << 30) == 0
