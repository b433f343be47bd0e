"""Sequence records in words (src/include/commands/sequence.h, rmgrdesc/seqdesc.c)."""

from tools.record_text.record import Describe, fixed


def describers(version: int) -> dict[int, Describe]:
    return {0x00: fixed("III", "rel {}/{}/{}")}
