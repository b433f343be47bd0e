"""RelMap records in words (src/include/utils/relmapper.h, rmgrdesc/relmapdesc.c)."""

from tools.record_text.record import Describe, fixed


def describers(version: int) -> dict[int, Describe]:
    return {0x00: fixed("IIi", "database {} tablespace {} size {}")}
