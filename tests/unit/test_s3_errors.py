"""What boto3 raises, as kinds of error: what may pass by itself and what somebody must mend."""

import botocore.exceptions as boto
import pytest
import urllib3.exceptions
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from server.backup.object_store import (
    NotThereError,
    RefusedError,
    StoreError,
    TakenError,
    TransientError,
)
from server.backup.s3_errors import told


def answered(code: str, status: int, message: str = "") -> ClientError:
    answer = {
        "Error": {"Code": code, "Message": message, "StringToSign": "hush"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "PutObject")  # type: ignore[arg-type]


ANSWERS = [
    (answered("AccessDenied", 403), RefusedError, "check the rights"),
    (answered("403", 403), RefusedError, "the store said 403; check the rights"),
    (answered("AuthorizationHeaderMalformed", 400), RefusedError, "check the region"),
    (answered("PermanentRedirect", 301), RefusedError, "check the region"),
    (answered("SignatureDoesNotMatch", 403), RefusedError, "AWS_SECRET_ACCESS_KEY"),
    (answered("InvalidAccessKeyId", 403), RefusedError, "AWS_ACCESS_KEY_ID"),
    (answered("RequestTimeTooSkewed", 403), RefusedError, "check the clock"),
    (answered("NoSuchBucket", 404), RefusedError, "backup creates none"),
    (answered("NoSuchKey", 404), NotThereError, "404 NoSuchKey"),
    (answered("404", 404), NotThereError, "404"),
    (answered("PreconditionFailed", 412, "it is there"), TakenError, "it is there"),
    (answered("ConditionalRequestConflict", 409), TransientError, "409"),
    (answered("SlowDown", 503), TransientError, "503"),
    (answered("InternalError", 500), TransientError, "500"),
    (answered("InternalError", 200), TransientError, "InternalError"),
    (answered("RequestTimeout", 400), TransientError, "RequestTimeout"),
    (answered("BadDigest", 400), TransientError, "BadDigest"),
    (answered("ExpiredToken", 400), TransientError, "ExpiredToken"),
    (answered("TooManyRequests", 429), TransientError, "429"),
    (answered("NotImplemented", 501), RefusedError, "501"),
    (answered("EntityTooLarge", 400), RefusedError, "400"),
    (answered("507", 507), TransientError, "507"),
]
FAILURES = [
    (boto.NoCredentialsError(), RefusedError, "AWS_ACCESS_KEY_ID"),
    (boto.ProfileNotFound(profile="x"), RefusedError, "profile"),
    (boto.SSLError(endpoint_url="u", error="CERTIFICATE_VERIFY_FAILED"), RefusedError,
     "AWS_CA_BUNDLE"),
    (boto.SSLError(endpoint_url="u", error="WRONG_VERSION_NUMBER"), RefusedError, "http://"),
    (boto.SSLError(endpoint_url="u", error="UNEXPECTED_EOF_WHILE_READING"), TransientError, "EOF"),
    (boto.EndpointConnectionError(endpoint_url="http://x"), TransientError, "check the endpoint"),
    (boto.ConnectTimeoutError(endpoint_url="http://x"), TransientError, "check the endpoint"),
    (boto.ReadTimeoutError(endpoint_url="http://x"), TransientError, "timeout"),
    (boto.ConnectionClosedError(endpoint_url="http://x"), TransientError, "closed"),
    (boto.CredentialRetrievalError(provider="x", error_msg="later"), TransientError, "later"),
    (ResponseParserError("not XML"), TransientError, "not XML"),
    (urllib3.exceptions.ProtocolError("cut"), TransientError, "cut"),
    (ConnectionResetError("reset"), TransientError, "reset"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind", "said"), ANSWERS + FAILURES, ids=str)
def test_kinds(error: Exception, kind: type[StoreError], said: str) -> None:
    with pytest.raises(StoreError) as caught, told("PUT s3://bucket/name"):
        raise error
    assert type(caught.value) is kind
    assert str(caught.value).startswith("PUT s3://bucket/name: ") and said in str(caught.value)
    assert "hush" not in str(caught.value)


def test_what_is_not_of_the_way_or_the_store_is_let_through() -> None:
    with pytest.raises(ZeroDivisionError), told("PUT s3://bucket/name"):
        raise ZeroDivisionError
