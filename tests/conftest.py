"""What all tests share: the fixtures, and a report header that says what this run runs on.

Kernels are tested compiled and interpreted, by two runs: `--require-interpreted` on a copy of the
tree that was never built, `--require-compiled` on the built one. Each option refuses to test the
other thing; `make test` does both runs.
"""

import pytest

from tests.fixtures import kernel_modes, postgres_servers
from tests.fixtures import s3_server as s3_servers
from tests.fixtures.fast_directory import fast_directory
from tests.fixtures.kernel_modes import Mode
from tests.fixtures.page_servers import page_server
from tests.fixtures.postgres_servers import postgres, postgres_templates, workspace
from tests.fixtures.receiving import receiving
from tests.fixtures.restore_source import saved
from tests.fixtures.running_service import running
from tests.fixtures.s3_server import s3_bucket, s3_server
from tests.fixtures.small_disk import small_disk

__all__ = [
    "fast_directory",
    "page_server",
    "postgres",
    "postgres_templates",
    "receiving",
    "running",
    "s3_bucket",
    "s3_server",
    "small_disk",
    "saved",
    "workspace",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pageserver")
    for mode in (Mode.COMPILED, Mode.INTERPRETED):
        option = f"--require-{mode}"
        group.addoption(option, action="store_true", help=f"refuse kernels that are not {mode}")


def pytest_configure(config: pytest.Config) -> None:
    for mode in (Mode.COMPILED, Mode.INTERPRETED):
        if config.getoption(f"--require-{mode}") and (complaint := kernel_modes.complaint(mode)):
            raise pytest.UsageError(complaint)


def pytest_report_header() -> list[str]:
    return kernel_modes.report_lines() + postgres_servers.report_lines() + s3_servers.report_lines()
