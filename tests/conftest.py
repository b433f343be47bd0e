"""What all tests share: the fixtures, and a report header that says what this run runs on."""

from tests.fixtures.page_servers import page_server
from tests.fixtures.postgres_servers import (
    postgres,
    postgres_templates,
    report_lines,
    workspace,
)

__all__ = ["page_server", "postgres", "postgres_templates", "workspace"]


def pytest_report_header() -> list[str]:
    return report_lines()
