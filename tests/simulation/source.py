"""The cluster of a simulated world: random records, into the WAL and into the model.

Few blocks, so that much happens to each. A relation of a `Layout` has blocks at the edges of
stripes and segments; one that covers a whole stripe of 16,384 blocks gets no images of it, which
would take too long (the policy sees to that), and all the other stripes are small.
"""

import copy
import struct
from random import Random

from engine.retention import POSTGRES_EPOCH_SECONDS
from tests.fixtures.crash_workload import Content, Relation
from tests.fixtures.small_store import create, image, insert, truncate
from tests.fixtures.wal_builder import Record, Reference, WalBuilder
from tests.simulation.model import TUPLES_MAX, UNREADABLE, Commit, Model

RELATIONS: tuple[Relation, ...] = ((1663, 5, 16384), (1663, 5, 16385))
LAYOUTS = (
    (0, 1, 2),
    (0, 1, 2),
    (0, 1),
    (16384, 16385),  # the second stripe alone
    (0, 16383, 16384),
    (131072, 131073),  # the second segment alone
    (131071, 131072),
    (1, 16384, 131072),
)
XIDS = (3, 700, 32767, 32768, 32768 * 32 - 1, 32768 * 32, 32768 * 32 + 1)
XIDS_PER_SEGMENT = 32768 * 32
MAP = "base/5/pg_filenode.map"
MAP_BYTES = 524
MIX = {
    "insert": 60, "image": 8, "init": 6, "truncate": 4, "drop": 2, "create": 3, "commit": 8,
    "map": 2, "unknown": 1, "cut_slru": 1, "nothing": 1,
}  # fmt: skip
MIX_OF_CUTS = {**MIX, "truncate": 15, "drop": 12, "create": 6}
MIX_OF_COMMITS = {**MIX, "commit": 60, "map": 20, "cut_slru": 3}


class Source:
    """Appends to a WAL what it tells the model."""

    def __init__(self, wal: WalBuilder, model: Model, random: Random) -> None:
        self.wal = copy.copy(wal)
        self.wal.data = bytearray(wal.data)
        self.wal.placed = list(wal.placed)
        self.model = model
        self._random = random
        self.blocks = random.choice(LAYOUTS)
        mix = random.choice((MIX, MIX, MIX_OF_CUTS, MIX_OF_COMMITS))
        self._kinds, self._weights = list(mix), list(mix.values())
        self._number = 0
        self._busy = random.choice(RELATIONS)

    def add_record(self, now: float) -> None:
        """One record; `now` in seconds since 1970."""
        random = self._random
        kind = random.choices(self._kinds, self._weights)[0]
        if random.random() < 0.05:
            self._busy = random.choice(RELATIONS)  # the other has peace for a while
        relation = self._busy if random.random() < 0.9 else random.choice(RELATIONS)
        block = random.choice(self.blocks)
        self._number += 1
        if kind in ("insert", "image", "init", "unknown"):
            self._change_page(kind, relation, block)
        elif kind in ("create", "truncate", "drop"):
            self._change_relation(kind, relation, now)
        elif kind == "commit":
            self._commit(random.choice(XIDS), 1 + random.randrange(2), now)
        elif kind == "cut_slru":
            cut = Record(3, 0x10, main=struct.pack("<qII", 32, XIDS_PER_SEGMENT, 5))
            self._place(cut, self.model.now.without_segment(0))
        elif kind == "map":
            content = random.randbytes(4) * (MAP_BYTES // 4)
            record = Record(7, 0x00, main=struct.pack("<IIi", 5, 1663, MAP_BYTES) + content)
            self._place(record, self.model.now.with_file(MAP, content))
        else:
            self._place(Record(main=bytes(random.choice((8, 700)))), self.model.now)

    def add_nothing(self, size: int) -> None:
        """A record of so many bytes that changes no page."""
        self._place(Record(main=bytes(size)), self.model.now)

    def _change_page(self, kind: str, relation: Relation, block: int) -> None:
        now, number = self.model.now, self._number
        old = now.pages.get((relation, block))
        if kind == "image":
            record, content = image(block, number, relation), Content(number)
        elif kind == "unknown" and block < now.sizes.get(relation, 0):
            record = Record(200, 0x20, references=[Reference(0, relation, block, data=b"x")])
            content = UNREADABLE
        else:
            init = kind == "init" or old is None or len(old.tuples) >= TUPLES_MAX
            tuples = () if init or old is None else old.tuples
            text = number.to_bytes(8, "little")
            record = insert(block, len(tuples) + 1, text, relation, init=init)
            content = Content(0, (*tuples, text))
            if old is UNREADABLE and not init:
                content = UNREADABLE
        self._place(record, now.with_page(relation, block, content))

    def _change_relation(self, kind: str, relation: Relation, now: float) -> None:
        sight = self.model.now
        size = sight.sizes.get(relation)
        if kind == "create":
            self._place(create(relation), sight.with_size(relation, size or 0))
        elif kind == "truncate":
            blocks = self._random.choice((0, *self.blocks, self.blocks[0] + 1))
            cut = sight.with_size(relation, min(size or 0, blocks))
            self._place(truncate(blocks, relation), cut)
        else:
            main = struct.pack("<Ii", 4, 1) + struct.pack("<III", *relation)
            dropped = sight.with_size(relation, None).with_status(0, XIDS[0], 1)
            self._end_transaction(0x80, XIDS[0], main, dropped, now)

    def _commit(self, xid: int, status: int, now: float) -> None:
        sight = self.model.now.with_status(xid // XIDS_PER_SEGMENT, xid, status)
        self._end_transaction(0x00 if status == 1 else 0x20, xid, b"", sight, now)

    def _end_transaction(self, info: int, xid: int, main: bytes, sight: object, now: float) -> None:
        time = round((now - POSTGRES_EPOCH_SECONDS) * 1_000_000)
        self._place(Record(1, info, xid, struct.pack("<q", time) + main), sight)
        start, end, _ = self.wal.placed[-1]
        self.model.commits.append(Commit(start, end, time))

    def _place(self, record: Record, sight: object) -> None:
        self.model.add(self.wal.add(record), sight)

    def bytes_from(self, lsn: int) -> bytes:
        return bytes(self.wal.data[lsn - self.wal.start :])
