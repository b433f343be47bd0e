"""boto3's client, as backup wants it, and what it counts: what the owner of the bucket pays for.

Credentials, profiles, proxies (HTTPS_PROXY, HTTP_PROXY, NO_PROXY), AWS_CA_BUNDLE and the addressing
style are boto3's own business: with an endpoint it puts the bucket into the path, without one into
the host's name, and `s3 = addressing_style = virtual` in a profile says otherwise.
"""

import logging
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
from botocore.config import Config
from botocore.handlers import add_expect_header

CONNECT_SECONDS_MAX = 10
READ_SECONDS_MAX = 60  # without a byte
ATTEMPTS_MAX = 4  # of one request, by boto3, with jitter
PROMPT_CONNECT_SECONDS_MAX, PROMPT_READ_SECONDS_MAX, PROMPT_ATTEMPTS_MAX = 5, 10, 3
"""The same where somebody waits for a page."""
REGION = "us-east-1"
"""Where none is configured: Amazon redirects from there, others do not care."""


@dataclass
class Traffic:
    """Requests that were sent, each attempt of them, and bytes of objects both ways."""

    requests: Counter[str] = field(default_factory=Counter)  # by operation: PutObject, ...
    bytes_sent: int = 0
    bytes_received: int = 0


class Meter:
    """Sees every request and every answer of a client. Used by any thread."""

    def __init__(self, client: Any) -> None:
        self._lock = threading.Lock()
        self._traffic = Traffic()
        self.date = 0.0
        """The store's clock in its last answer, seconds since 1970; 0 before the first."""
        client.meta.events.register("before-send.s3", self._note_request)
        client.meta.events.register("response-received.s3", self._note_answer)

    def traffic(self) -> Traffic:
        with self._lock:
            seen = self._traffic
            return Traffic(Counter(seen.requests), seen.bytes_sent, seen.bytes_received)

    def note_received(self, count: int) -> None:
        with self._lock:
            self._traffic.bytes_received += count

    def _note_request(self, request: Any, event_name: str, **_: object) -> None:
        length = int(request.headers.get("Content-Length", 0))
        with self._lock:
            self._traffic.requests[event_name.rpartition(".")[2]] += 1
            self._traffic.bytes_sent += length

    def _note_answer(self, response_dict: Any, **_: object) -> None:
        date = response_dict["headers"].get("Date") if response_dict else None
        if date:
            with suppress(ValueError):  # damaged on the way: the next will do
                self.date = parsedate_to_datetime(date).timestamp()


def connect(endpoint: str | None, connections_max: int, *, is_prompt: bool = False) -> Any:
    """`is_prompt`: it gives up early.

    ValueError: what the environment or a profile says for an endpoint is none.
    """
    logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells where it found what
    session = boto3.Session()
    client = session.client(
        "s3",
        endpoint_url=endpoint,
        region_name=session.region_name or REGION,
        config=Config(
            connect_timeout=PROMPT_CONNECT_SECONDS_MAX if is_prompt else CONNECT_SECONDS_MAX,
            read_timeout=PROMPT_READ_SECONDS_MAX if is_prompt else READ_SECONDS_MAX,
            retries={
                "mode": "standard",
                "total_max_attempts": PROMPT_ATTEMPTS_MAX if is_prompt else ATTEMPTS_MAX,
            },
            max_pool_connections=connections_max,
            tcp_keepalive=True,
            # CRC-32C is computed here; boto3 would need another library for it, and over TLS send
            # it behind the body, in a way that older stores do not know.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    # boto3 asks before each body whether it may come: a round trip, and a second with a store that
    # does not answer that.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    return client
