"""What `layertool dump` shows of a file: plain values, ready for a table or for JSON."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.bundle_reader import BundleReader
from engine.storage import Storage
from formats import frame as frames
from formats import manifest as manifest_format
from formats.chunk import ChunkKey, ChunkKind
from formats.layer_file import LayerKind
from formats.lsn import show as show_lsn
from formats.manifest_record import Record
from tools.version_text import describe_version


class BundleDump:
    """A bundle, part by part; every part is checked as it is read."""

    def __init__(self, path: Path) -> None:
        self.reader = BundleReader(Storage(), path)

    def header(self) -> dict[str, Any]:
        reader, footer = self.reader, self.reader.footer
        return {
            "file": reader.name.text,
            "bytes": reader.bytes_total,
            "kind": footer.kind,
            "epoch": reader.name.epoch,
            "run": reader.name.run,
            "sequence": reader.name.sequence,
            "tenant": footer.tenant,
            "timeline": footer.timeline,
            "postgres_version": footer.postgres_version,
            "lsn_start": show_lsn(footer.lsn_start),
            "lsn_end": show_lsn(footer.lsn_end),
            "layers": footer.layers,
            "frames": footer.frames,
            "versions": footer.versions,
            "directory_offset": footer.directory_offset,
            "table_offset": footer.table_offset,
            "footer_crc": f"{reader.footer_crc:08x}",
        }

    def directory(self) -> Iterator[dict[str, Any]]:
        """One row per layer, in order of chunk keys."""
        directory = self.reader.directory
        for row in range(directory.count):
            yield {
                "chunk": ChunkKey.unpack(directory.key(row)).name,
                "stripe": directory.stripe(row),
                "kind": LayerKind(directory.kind(row)).name.lower(),
                "lsn_start": show_lsn(directory.lsn_start(row)),
                "lsn_end": show_lsn(directory.lsn_end(row)),
                "blocks": f"{directory.block_start(row)}..{directory.block_end(row)}",
                "frames": f"{directory.frame_start(row)}..{directory.frame_end(row)}",
                "versions": directory.versions(row),
                "number": directory.number(row),
            }

    def frames(self) -> Iterator[dict[str, Any]]:
        """One row per frame, in order of place."""
        table = self.reader.table
        for number in range(table.count):
            yield {
                "frame": number,
                "offset": table.offset(number),
                "stored": table.stored_length(number),
                "raw": table.raw_length(number),
                "layer": table.layer(number),
                "block": table.block(number),
                "lsn": show_lsn(table.lsn(number)),
            }

    def entries(self) -> Iterator[dict[str, Any]]:
        """One row per version, in order of place."""
        directory = self.reader.directory
        keys = {
            directory.number(row): ChunkKey.unpack(directory.key(row))
            for row in range(directory.count)
        }
        names = {number: key.name for number, key in keys.items()}
        postgres = self.reader.footer.postgres_version // 10000
        for number in range(self.reader.table.count):
            raw = self.reader.read_frame(number)
            for slot in range(frames.version_count(raw)):
                payload = bytes(
                    raw[frames.version_start(raw, slot) : frames.version_end(raw, slot)]
                )
                layer = frames.version_layer(raw, slot)
                has_pages = keys[layer].kind == ChunkKind.REL
                yield {
                    "frame": number,
                    "chunk": names[layer],
                    "block": frames.version_block(raw, slot),
                    "lsn": show_lsn(frames.version_lsn(raw, slot)),
                    "bytes": len(payload),
                    **describe_version(payload, postgres, has_pages)._asdict(),
                }

    def entry_lines(self) -> Iterator[str]:
        """`entries` as lines: a head, then one for each, the description last and never broken."""
        directory = self.reader.directory
        names = (ChunkKey.unpack(directory.key(row)).name for row in range(directory.count))
        width = max(map(len, names), default=0)
        layout = (
            f"{{frame:>6}}  {{chunk:<{width}}}  {{block:>10}}  {{lsn:<17}}  {{bytes:>6}}  "
            "{kind:<27}  {tx:>10}  {reference:>9}  {flags:<10}  {description}"
        )
        for number, row in enumerate(self.entries()):
            if number == 0:
                yield layout.format(**{name: name for name in row})
            cells = {name: "" if value is None else value for name, value in row.items()}
            yield layout.format(**cells).rstrip()


def dump_manifest(path: Path) -> list[dict[str, Any]]:
    """One row per record of a manifest file."""
    data = Storage().read_all(path)
    rows = []
    for entry in manifest_format.entries(data, str(path)):
        for record in entry.records:
            rows.append(
                {"serial": entry.serial, "record": record.tag, "fields": record_fields(record)}
            )
    return rows


def record_fields(record: Record) -> dict[str, Any]:
    """The fields that say something, LSNs as PostgreSQL writes them, bytes in hexadecimal."""
    return {name: _field(name, value) for name, value in vars(record).items() if value is not None}


def _field(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return show_lsn(value) if name.startswith("lsn") or name.endswith("lsn") else value
