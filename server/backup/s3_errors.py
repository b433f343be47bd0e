"""What botocore raises, as the kinds of error that backup tells apart, with what to do about it.

No text has a secret in it: what the store sends back of a request, and URLs of proxies, are left
out; botocore puts no credentials into its own texts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import botocore.exceptions as boto
import urllib3.exceptions
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from server.backup.object_store import (
    NotThereError,
    RefusedError,
    StoreError,
    TakenError,
    TransientError,
)

FAILURES = (
    ClientError,
    BotoCoreError,
    ResponseParserError,
    urllib3.exceptions.HTTPError,
    OSError,
)
"""Whatever may come out of a call or out of reading its body."""

CREDENTIALS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the profile or the machine's role"
RIGHTS = "check the rights of these credentials on the bucket (docs/s3-endpoints.md lists them)"
REGION = "check the region: AWS_DEFAULT_REGION, or the profile's"
CLOCK = "check the clock of this machine"
ADVICE = {
    "AccessDenied": RIGHTS,
    "AccountProblem": "check the account",
    "AllAccessDisabled": "check the account",
    "AuthorizationHeaderMalformed": REGION,
    "IllegalLocationConstraintException": REGION,
    "InvalidAccessKeyId": CREDENTIALS,
    "InvalidBucketName": "check the bucket's name",
    "InvalidToken": CREDENTIALS,
    "KMS.DisabledException": "check the key of the server-side encryption",
    "KMS.NotFoundException": "check the key of the server-side encryption",
    "NotImplemented": (
        "this store lacks what was asked of it (docs/s3-endpoints.md); without conditional PUT, "
        "fencing = off"
    ),
    "NoSuchBucket": "check the bucket's name, or create it: backup creates none",
    "PermanentRedirect": REGION,
    "RequestTimeTooSkewed": CLOCK,
    "SignatureDoesNotMatch": f"{CREDENTIALS}; a proxy on the way may have changed the request",
}
PASSING = {
    "BadDigest",  # what came there is not what was sent: the way damaged it
    "ConditionalRequestConflict",
    "ExpiredToken",  # a role's, that boto3 gets anew
    "IncompleteBody",
    "InternalError",
    "InvalidDigest",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeTooSkewedException",
    "ServiceUnavailable",
    "SlowDown",
    "ThrottlingException",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
"""Codes that come with a status of 400 or 403 too, and yet are no refusal."""

PASSING_STATUSES = {408, 409, 423, 425, 429, 500, 502, 503, 504}


@contextmanager
def told(call: str) -> Iterator[None]:
    """`call` names the call and its object: "PUT s3://bucket/name"."""
    try:
        yield
    except FAILURES as error:
        raise told_of(call, error) from None


def told_of(call: str, error: Exception) -> StoreError:
    if isinstance(error, ClientError):
        return _of_answer(call, error)
    kind, advice = _of_failure(error)
    text = " ".join(str(error).split())
    return kind(f"{call}: {text}" + (f"; {advice}" if advice else ""))


def code_of(error: Exception) -> str:
    """S3's own word for it; empty where the store did not answer."""
    answer = error.response if isinstance(error, ClientError) else {}
    return str(answer.get("Error", {}).get("Code", ""))


def status_of(error: Exception) -> int:
    """The answer's HTTP status; 0 where the store did not answer."""
    answer = error.response if isinstance(error, ClientError) else {}
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _of_answer(call: str, error: ClientError) -> StoreError:
    fault: dict[str, Any] = error.response.get("Error", {})
    status, code, message = status_of(error), code_of(error), str(fault.get("Message", ""))
    kind, advice = _kind_of(code, status), ADVICE.get(code, "")
    if status == 403 and not advice:
        advice = RIGHTS  # an answer without a body, to HEAD
    said = f"the store said {status} {code}" if code != str(status) else f"the store said {status}"
    if message:
        said += f" ({' '.join(message.split())[:300]})"
    return kind(f"{call}: {said}" + (f"; {advice}" if advice else ""))


def _kind_of(code: str, status: int) -> type[StoreError]:
    if code in PASSING or status in PASSING_STATUSES:
        return TransientError
    if code in ADVICE:
        return RefusedError
    if status == 404:
        return NotThereError
    if status == 412:
        return TakenError
    # A status below 400 is an error within an answer that had begun well.
    return TransientError if status < 300 or status > 501 else RefusedError


def _of_failure(error: Exception) -> tuple[type[StoreError], str]:
    text = str(error)
    match error:
        case boto.NoCredentialsError() | boto.PartialCredentialsError() | boto.ProfileNotFound():
            return RefusedError, CREDENTIALS
        case boto.SSLError() | urllib3.exceptions.SSLError() if "CERTIFICATE" in text.upper():
            return RefusedError, (
                "check the endpoint's name, and AWS_CA_BUNDLE for a certificate of your own"
            )
        case boto.SSLError() | urllib3.exceptions.SSLError() if "WRONG_VERSION" in text.upper():
            return RefusedError, "check the endpoint: http:// or https://"
        case boto.ProxyConnectionError():
            return TransientError, "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
        case boto.EndpointConnectionError() | boto.ConnectTimeoutError():
            return TransientError, "check the endpoint, and the way to it"
        case boto.ParamValidationError() | boto.InvalidRegionError():
            return RefusedError, ""
    return TransientError, ""
