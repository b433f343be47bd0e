"""What `layertool dump` shows of a WAL segment, such as those of a journal: pg_waldump's lines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.record_batch import RecordBatch
from formats import rmgr
from tools import wal_stats
from tools.record_text.describe import describe
from tools.record_text.record import FORKS, Block, Record

# Flags of a reference and of its image's info byte (formats/wal_record.py).
FORK_MASK, IMAGE = 0x0F, 0x10
APPLY = 2


def dump_segment(path: Path) -> Iterator[dict[str, Any]]:
    """One row per record that starts in the segment, up to the first zeros.

    Raises CorruptionError behind the last row where the segment is damaged.
    """
    reader, parts = wal_stats.open_wal([path])
    for batch, r in wal_stats.records(reader, parts):
        yield record_row(batch, r, reader.version)


def record_row(batch: RecordBatch, r: int, version: int) -> dict[str, Any]:
    """A record of a batch as plain values; `bytes` are without its page images, `bytes_total`
    with."""
    references = range(batch.first_reference[r], batch.first_reference[r + 1])
    position, length = batch.record_pos[r], batch.record_length[r]
    manager, info = batch.rmgr[r], batch.info[r]
    data = batch.data
    previous = int.from_bytes(data[position + 8 : position + 16], "little")
    return {
        "lsn": padded(batch.lsn_start[r]),
        "prev": padded(previous),
        "tx": batch.xid[r],
        "bytes": length - sum(batch.ref_image_length[i] for i in references),
        "bytes_total": length,
        "rmgr": rmgr.name(manager),
        "opcode": rmgr.opcode_name(version, manager, info),
        "description": describe(_record(batch, r, version)),
        "blocks": [_reference(batch, i) for i in references],
    }


def record_line(row: dict[str, Any]) -> str:
    """A row as pg_waldump prints it."""
    return (
        f"rmgr: {row['rmgr']:<11} len (rec/tot): {row['bytes']:6}/{row['bytes_total']:6}, "
        f"tx: {row['tx']:10}, lsn: {row['lsn']}, prev {row['prev']}, "
        f"desc: {row['opcode']} {row['description']}"
        + "".join(f", blkref {reference}" for reference in row["blocks"])
    )


def padded(lsn: int) -> str:
    """An LSN as pg_waldump writes those of records."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:08X}"


def _record(batch: RecordBatch, r: int, version: int) -> Record:
    data = batch.data

    def piece(position: int, length: int) -> bytes:
        return bytes(data[position : position + length])

    blocks = {
        batch.ref_id[i]: Block(
            piece(batch.ref_data_pos[i], batch.ref_data_length[i]),
            bool(batch.ref_flags[i] & IMAGE),
            bool(batch.ref_image_info[i] & APPLY),
        )
        for i in range(batch.first_reference[r], batch.first_reference[r + 1])
    }
    main = piece(batch.main_pos[r], batch.main_length[r])
    return Record(version, batch.rmgr[r], batch.info[r], main, blocks, batch.origin[r])


def _reference(batch: RecordBatch, i: int) -> str:
    flags = batch.ref_flags[i]
    fork = f"fork {FORKS[flags & FORK_MASK]} " if flags & FORK_MASK else ""
    relation = f"{batch.ref_spc[i]}/{batch.ref_db[i]}/{batch.ref_rel[i]}"
    text = f"#{batch.ref_id[i]}: rel {relation} {fork}blk {batch.ref_block[i]}"
    if flags & IMAGE:
        text += " FPW" if batch.ref_image_info[i] & APPLY else " FPW for WAL verification"
    return text
