"""Reads a whole LMDB index and says what is wrong: run by a child process, which may die of it.

    python -m engine.index_check DIRECTORY        exit status 0 sound, 1 findings on stdout,
                                                  3 an index of another format version

Run before a directory is opened, and by `layertool verify`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from engine.index import MAP_BYTES, OTHER_VERSION, lmdb_errors
from formats import index_value as values
from formats.errors import CorruptionError
from formats.index_value import CHUNKS, DATABASES, FILES, L0, LAYERS, META, RELATIONS, STATE_KEY


class OtherVersionError(Exception):
    """A state that checks names another format version; the rest was not looked at."""


class _Keys:
    """A set of keys of which only the number and a sum are kept: enough to tell two apart."""

    def __init__(self) -> None:
        self.count = self.sum = 0

    def add(self, key: bytes) -> None:
        self.count += 1
        self.sum += hash(key)


class IndexCheck:
    """Looks at each value once, against its seal; then each database against its count and sum,
    and each other. It keeps no more than files' names in memory, whatever the index's size."""

    def __init__(self, environment: lmdb.Environment) -> None:
        self._environment = environment
        self._meta: dict[bytes, bytes] = {}
        self._unfound: dict[tuple[bytes, bytes], None] = {}
        self._found: dict[bytes, tuple[int, int]] = {}  # by database: entries, sum of their CRCs
        self._files, self._l0, self._named = set[bytes](), set[bytes](), set[bytes]()
        self._stripes, self._stripes_named = _Keys(), _Keys()

    def problems(self) -> Iterator[CorruptionError]:
        """OtherVersionError: there is nothing to be said."""
        self._meta = dict(self._items(META))
        if self._is_of_other_version():
            raise OtherVersionError
        damaged = list(self._value_problems())
        for database, key in self._unfound:
            where = f"index, {database.decode()} key {key.hex()}"
            yield CorruptionError("index key", where, "found", "absent")
        if not self._meta and not any(count for count, _ in self._found.values()):
            return
        yield from damaged
        yield from self._sum_problems()
        if not damaged:
            yield from self._reference_problems()

    def _is_of_other_version(self) -> bool:
        value = self._meta.get(STATE_KEY)
        try:
            return value is not None and values.version_of(value) != values.FORMAT_VERSION
        except CorruptionError:
            return False

    def _items(self, name: bytes) -> Iterator[tuple[bytes, bytes]]:
        """What a database has; the keys that LMDB has but does not find are noted."""
        try:
            database = self._environment.open_db(name, create=False)
        except lmdb.NotFoundError:
            return
        with self._environment.begin(db=database) as transaction:
            for key, value in transaction.cursor():
                if transaction.get(key) is None:  # its page is there, the way down to it is not
                    self._unfound[name, key] = None
                yield key, value

    def _value_problems(self) -> Iterator[CorruptionError]:
        for name in DATABASES[:-1]:
            count = crcs = 0
            for key, value in self._items(name):
                count += 1
                crcs += values.seal_crc(value) if len(value) >= 8 else 0
                try:
                    self._look_at(name, key, value)
                except CorruptionError as error:
                    yield error
            self._found[name] = count, crcs % (1 << 64)

    def _look_at(self, name: bytes, key: bytes, value: bytes) -> None:
        """Take a value apart, and note what it refers to."""
        if name == L0:
            values.unseal(L0, key, value)
            self._l0.add(key)
        elif name == LAYERS:
            self._named.update(layer.file.pack() for layer in values.unpack_layers(key, value))
            self._stripes.add(key)
        elif name == FILES:
            values.unpack_file(key, value)
            self._files.add(key)
        elif name == CHUNKS:
            for stripe_key in _stripes_of(key, value):
                self._stripes_named.add(stripe_key)
        elif name == RELATIONS:
            values.unpack_relation(key, value)

    def _sum_problems(self) -> Iterator[CorruptionError]:
        if STATE_KEY not in self._meta:
            yield CorruptionError("index key", "index, meta", "present", "no state")
        else:
            try:
                values.unpack_state(self._meta[STATE_KEY])
            except CorruptionError as error:
                yield error
        for key in sorted(self._meta.keys() - {STATE_KEY, *map(values.sum_key, DATABASES[:-1])}):
            yield CorruptionError("index key", "index, meta", "a known one", key)
        for database in DATABASES[:-1]:
            where = f"index, {database.decode()}"
            value = self._meta.get(values.sum_key(database))
            if value is None:
                yield CorruptionError("index key", where, "present", "no sum")
                continue
            try:
                expected = values.unpack_sum(database, value)
            except CorruptionError as error:
                yield error
                continue
            if expected != self._found[database]:
                found = self._found[database]
                yield CorruptionError("index entries (count, sum)", where, expected, found)

    def _reference_problems(self) -> Iterator[CorruptionError]:
        """`chunks` names exactly the stripes of `layers`; these and `l0` only files of `files`."""
        if vars(self._stripes) != vars(self._stripes_named):
            named = {one for key, value in self._items(CHUNKS) for one in _stripes_of(key, value)}
            for key in sorted(named ^ {key for key, _ in self._items(LAYERS)}):
                where = f"index, layers key {key.hex()}"
                yield CorruptionError(
                    "index key", where, "in chunks and in layers", "in one of them"
                )
        for key in sorted((self._named | self._l0) - self._files):
            yield CorruptionError("index file", f"index, files key {key.hex()}", "present",
                                  "absent")  # fmt: skip


def _stripes_of(key: bytes, value: bytes) -> Iterator[bytes]:
    """The keys in `layers` that a value of `chunks` names."""
    bits = values.unpack_stripes(key, value)
    for stripe in range(bits.bit_length()):
        if bits >> stripe & 1:
            yield values.stripe_key(key, stripe)


@contextmanager
def _opened(path: Path) -> Iterator[lmdb.Environment]:
    with lmdb_errors(path):
        environment = lmdb.open(str(path), map_size=MAP_BYTES, max_dbs=len(DATABASES),
                                readonly=True, lock=False)  # fmt: skip
        try:
            yield environment
        finally:
            environment.close()


def problems(path: Path) -> Iterator[CorruptionError]:
    """All that is wrong with an index; OtherVersionError."""
    with _opened(path) as environment:
        yield from IndexCheck(environment).problems()


def main(path: str) -> int:
    status = 0
    try:
        for problem in problems(Path(path)):
            print(problem)
            status = 1
    except OtherVersionError:
        return OTHER_VERSION
    except (CorruptionError, lmdb.Error) as error:  # here all of LMDB's errors are findings
        print(error)
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
