"""Paths of small files and their chunk keys, both ways."""

import pytest

from formats.cluster_path import small_file_key, small_file_path


@pytest.mark.parametrize(
    "path",
    [
        "global/pg_control",
        "backup_label",
        "tablespace_map",
        "PG_VERSION",
        "global/pg_filenode.map",
        "base/5/PG_VERSION",
        "base/4294967295/pg_filenode.map",
        "pg_tblspc/16390/5/pg_filenode.map",
        "pg_twophase/0000FFFF",
        "pg_logical/replorigin_checkpoint",
    ],
)
def test_path_survives_the_way_there_and_back(path: str) -> None:
    key = small_file_key(path)
    assert key is not None
    assert small_file_path(key) == path


def test_real_tablespace_path_has_a_version_directory() -> None:
    key = small_file_key("pg_tblspc/16390/PG_18_202506291/5/PG_VERSION")
    assert key == small_file_key("pg_tblspc/16390/5/PG_VERSION")


@pytest.mark.parametrize("path", ["postgresql.conf", "base/5/1259", "base/x/PG_VERSION", ""])
def test_other_files_are_not_kept(path: str) -> None:
    assert small_file_key(path) is None
