"""What a store will not do, or cannot be reached for: the kind of error, and what to check."""

import os
import socket
import threading
from collections.abc import Callable

import pytest

from server.backup import s3_client
from server.backup.object_store import RefusedError, StoreError, TransientError
from server.backup.s3_store import S3Store
from tests.fixtures.s3_proxy import S3Proxy
from tests.fixtures.s3_server import Bucket
from tools.s3_server import SECRET_KEY

CALLS: dict[str, Callable[[S3Store], object]] = {
    "now": lambda store: store.now(),  # first: any answer has a date, a refusal too
    "put": lambda store: store.put("name", b"x"),
    "put_new": lambda store: store.put_new("name", b"x"),
    "put_stream": lambda store: store.put_stream("name", iter([b"x" * (17 << 20)]), 17 << 20),
    "get": lambda store: store.get("name"),
    "get_stream": lambda store: next(store.get_stream("name")),
    "list": lambda store: next(store.list("")),
    "delete": lambda store: store.delete(["name"]),
}


@pytest.fixture(autouse=True)
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "ATTEMPTS_MAX", 1)


def refused(store: S3Store, kind: type[StoreError], *words: str) -> None:
    for name, call in CALLS.items():
        with pytest.raises(kind, match="s3://") as caught:
            call(store)
        for word in words:
            assert word in str(caught.value), name
        assert SECRET_KEY not in str(caught.value)


def test_wrong_credentials(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    refused(S3Store(s3_bucket.url, s3_bucket.endpoint), RefusedError, "403", "check")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    refused(S3Store(s3_bucket.url, s3_bucket.endpoint), RefusedError, "403", "check")


def test_no_credentials(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull)
    refused(S3Store(s3_bucket.url, s3_bucket.endpoint), RefusedError, "AWS_ACCESS_KEY_ID")


def test_a_profile_that_is_not_there(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "none-of-that-name")
    with pytest.raises(RefusedError, match="none-of-that-name.*profile"):
        S3Store(s3_bucket.url, s3_bucket.endpoint)


def test_an_endpoint_of_the_environment_that_is_none(
    s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for endpoint in ("localhost:8333", "http://user:hunter2@localhost:8333"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(RefusedError, match="AWS_ENDPOINT_URL.*expected http") as refusal:
            S3Store(s3_bucket.url)
        assert "hunter2" not in str(refusal.value)


def test_no_such_bucket(s3_bucket: Bucket) -> None:
    store = S3Store("s3://no-such-bucket/backup", s3_bucket.endpoint)
    refused(store, RefusedError, "NoSuchBucket", "create it")


def test_nobody_listens(s3_bucket: Bucket) -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        store = S3Store(s3_bucket.url, f"http://127.0.0.1:{bound.getsockname()[1]}")
        refused(store, TransientError, "check the endpoint")


def test_an_unknown_host(s3_bucket: Bucket) -> None:
    store = S3Store(s3_bucket.url, "http://no-such-host.invalid")
    refused(store, TransientError, "no-such-host.invalid", "check the endpoint")


@pytest.mark.parametrize("is_prompt", [False, True])
def test_nobody_answers(
    s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch, *, is_prompt: bool
) -> None:
    """Whoever waits for a page gives up early."""
    name = "PROMPT_READ_SECONDS_MAX" if is_prompt else "READ_SECONDS_MAX"
    monkeypatch.setattr(s3_client, name, 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        store = S3Store(s3_bucket.url, url, is_prompt=is_prompt)
        refused(store, TransientError, "timeout")
        attempts = s3_client.PROMPT_ATTEMPTS_MAX if is_prompt else s3_client.ATTEMPTS_MAX
        assert store.traffic().requests["DeleteObjects"] == attempts


# TLS ----------------------------------------------------------------------------------------------


def certified(bucket: Bucket) -> str:
    if bucket.server.certificate is None:
        # The server speaks TLS with a certificate only, and nothing else here can make one.
        pytest.skip("no openssl here to make a certificate with")
    return str(bucket.server.certificate)


def test_over_tls(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", certified(s3_bucket))
    store = S3Store(s3_bucket.url, s3_bucket.server.tls_endpoint)
    store.put_new("name", b"bytes")
    store.put_stream("large", iter([b"x" * (17 << 20)]), 17 << 20)
    assert store.get("name") == b"bytes"
    assert sum(map(len, store.get_stream("large"))) == 17 << 20
    assert [found.name for found in store.list("")] == ["large", "name"]
    store.delete(["large"])


def test_an_unknown_certificate(s3_bucket: Bucket) -> None:
    certified(s3_bucket)
    refused(S3Store(s3_bucket.url, s3_bucket.server.tls_endpoint), RefusedError, "AWS_CA_BUNDLE")


def test_tls_where_there_is_none(s3_bucket: Bucket) -> None:
    endpoint = s3_bucket.endpoint.replace("http:", "https:")
    refused(S3Store(s3_bucket.url, endpoint), RefusedError, "http:// or https://")


# Ways to the store --------------------------------------------------------------------------------


def test_the_bucket_is_in_the_path_unless_a_profile_says_otherwise(
    s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = tmp_path_factory.mktemp("aws") / "config"
    config.write_text("[default]\ns3 =\n    addressing_style = virtual\n")
    with S3Proxy(s3_bucket.server) as proxy:
        S3Store(s3_bucket.url, proxy.endpoint).put("name", b"x")
        assert proxy.requests == [f"PUT /{s3_bucket.name}/backup/name"]
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        virtual = S3Store(s3_bucket.url, proxy.endpoint.replace("127.0.0.1", "localhost"))
        with pytest.raises(TransientError, match=f"//{s3_bucket.name}.localhost"):
            virtual.put("name", b"x")  # that name leads nowhere, or to a server that knows no such


def test_an_endpoint_and_a_proxy_of_the_environment(
    s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with S3Proxy(s3_bucket.server) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.endpoint)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.example.invalid")
        store = S3Store(s3_bucket.url)
        store.put("name", b"x")
        assert store.get("name") == b"x"
        assert proxy.requests[-1] == f"GET /{s3_bucket.name}/backup/name"


def test_amazon_is_addressed_by_the_buckets_name(
    s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with S3Proxy(s3_bucket.server) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.endpoint)
        refused(S3Store("s3://some-bucket/backup"), TransientError, "HTTPS_PROXY")
        names = {"CONNECT some-bucket.s3.eu-central-1.amazonaws.com:443"}
        assert set(proxy.requests) == names


def test_a_proxy_that_is_not_there(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://user:{SECRET_KEY}@127.0.0.1:9")
    refused(S3Store(s3_bucket.url, "http://s3.example.invalid"), TransientError, "HTTPS_PROXY")


def test_no_body_waits_to_be_asked_for(s3_bucket: Bucket) -> None:
    """Silence before a body would cost a second a PUT."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store = S3Store(s3_bucket.url, f"http://127.0.0.1:{listener.getsockname()[1]}")
        asked: list[bytes] = []

        def refuse() -> None:
            with listener.accept()[0] as client:
                asked.append(client.recv(1 << 16))

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(TransientError):
            store.put("name", b"x")
        thread.join()
        assert b"expect" not in asked[0].lower()
