"""Reads a whole LMDB index and says what is wrong: run by a child process, which may die of it.

    python -m engine.index_check DIRECTORY        exit status 0 sound, 1 findings on stdout,
                                                  3 an index of another format version

Run before a directory is opened, and by `layertool verify`.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import lmdb

from engine.index import MAP_BYTES, OTHER_VERSION, lmdb_errors
from formats import index_value as values
from formats.errors import CorruptionError
from formats.index_value import CHUNKS, DATABASES, FILES, L0, LAYERS, META, RELATIONS, STATE_KEY

Databases = dict[bytes, dict[bytes, bytes]]


def read(path: Path) -> tuple[Databases, list[CorruptionError]]:
    """Everything, by database, and the keys that LMDB has but does not find."""
    unfound = []
    with lmdb_errors(path):
        environment = lmdb.open(str(path), map_size=MAP_BYTES, max_dbs=len(DATABASES),
                                readonly=True, lock=False)  # fmt: skip
        try:
            found = {}
            for name in DATABASES:
                try:
                    database = environment.open_db(name, create=False)
                except lmdb.NotFoundError:
                    continue
                with environment.begin(db=database) as transaction:
                    found[name] = dict(transaction.cursor())
                    lost = [key for key in found[name] if transaction.get(key) is None]
                for key in lost:  # its page is there, the way down to it is not
                    where = f"index, {name.decode()} key {key.hex()}"
                    unfound.append(CorruptionError("index key", where, "found", "absent"))
        finally:
            environment.close()
    return found, unfound


def is_of_other_version(found: Databases) -> bool:
    """Whether a state that checks names another format version."""
    value = found.get(META, {}).get(STATE_KEY)
    if value is None:
        return False
    try:
        return values.version_of(value) != values.FORMAT_VERSION
    except CorruptionError:
        return False


def problems(path: Path) -> Iterator[CorruptionError]:
    """Every value against its seal, every database against its count and sum, and each other."""
    found, unfound = read(path)
    yield from unfound
    yield from _problems(found)


def _problems(found: Databases) -> Iterator[CorruptionError]:
    if not any(found.values()):
        return
    stripes: set[bytes] = set()
    named: set[bytes] = set()
    damaged = list(_value_problems(found, stripes, named))
    yield from damaged
    yield from _sum_problems(found)
    if not damaged:
        yield from _reference_problems(found, stripes, named)


def _value_problems(
    found: Databases, stripes: set[bytes], named: set[bytes]
) -> Iterator[CorruptionError]:
    """Each value is taken apart once: `stripes` gets the keys that the values of `chunks` name,
    `named` the files that those of `layers` do."""

    def note_stripes(key: bytes, value: bytes) -> None:
        bits = values.unpack_stripes(key, value)
        for stripe in range(bits.bit_length()):
            if bits >> stripe & 1:
                stripes.add(values.stripe_key(key, stripe))

    def note_files(key: bytes, value: bytes) -> None:
        named.update(layer.file.pack() for layer in values.unpack_layers(key, value))

    checks: dict[bytes, Callable[[bytes, bytes], object]] = {
        L0: partial(values.unseal, L0),
        LAYERS: note_files,
        FILES: values.unpack_file,
        CHUNKS: note_stripes,
        RELATIONS: values.unpack_relation,
    }
    for database, check in checks.items():
        for key, value in found.get(database, {}).items():
            try:
                check(key, value)
            except CorruptionError as error:
                yield error


def _sum_problems(found: Databases) -> Iterator[CorruptionError]:
    meta = found.get(META, {})
    if STATE_KEY not in meta:
        yield CorruptionError("index key", "index, meta", "present", "no state")
    else:
        try:
            values.unpack_state(meta[STATE_KEY])
        except CorruptionError as error:
            yield error
    for key in sorted(meta.keys() - {STATE_KEY, *map(values.sum_key, DATABASES[:-1])}):
        yield CorruptionError("index key", "index, meta", "a known one", key)
    for database in DATABASES[:-1]:
        where = f"index, {database.decode()}"
        value = meta.get(values.sum_key(database))
        if value is None:
            yield CorruptionError("index key", where, "present", "no sum")
            continue
        entries = found.get(database, {}).values()
        crcs = sum(values.seal_crc(entry) for entry in entries if len(entry) >= 8)
        try:
            expected = values.unpack_sum(database, value)
        except CorruptionError as error:
            yield error
            continue
        if expected != (len(entries), crcs % (1 << 64)):
            yield CorruptionError("index entries (count, sum)", where, expected,
                                  (len(entries), crcs % (1 << 64)))  # fmt: skip


def _reference_problems(
    found: Databases, stripes: set[bytes], named: set[bytes]
) -> Iterator[CorruptionError]:
    """`chunks` names exactly the stripes of `layers`; these and `l0` only files of `files`."""
    for key in sorted(stripes ^ found.get(LAYERS, {}).keys()):
        where = f"index, layers key {key.hex()}"
        yield CorruptionError("index key", where, "in chunks and in layers", "in one of them")
    for key in sorted((named | found.get(L0, {}).keys()) - found.get(FILES, {}).keys()):
        yield CorruptionError("index file", f"index, files key {key.hex()}", "present", "absent")


def main(path: str) -> int:
    status = 0
    try:
        found, unfound = read(Path(path))
        if is_of_other_version(found):
            return OTHER_VERSION
        for problem in (*unfound, *_problems(found)):
            print(problem)
            status = 1
    except (CorruptionError, lmdb.Error) as error:  # here all of LMDB's errors are findings
        print(error)
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
