"""Where a backup is: what is taken, what is refused, and that no password is repeated."""

import pytest

from server.backup.location import Location, LocationError, check_endpoint


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://bucket/a", "bucket", "a/"),
        ("s3://my.bucket-1/a/b_c/", "my.bucket-1", "a/b_c/"),
    ],
)
def test_a_location(url: str, bucket: str, prefix: str) -> None:
    location = Location.parse(url)
    assert location == (bucket, prefix)
    assert location.url == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("bucket/prefix", "expected s3://BUCKET"),
        ("http://bucket/prefix", "expected s3://BUCKET"),
        ("s3://", "expected s3://BUCKET"),
        ("s3:///prefix", "expected s3://BUCKET"),
        ("s3://b", "cannot be a bucket's name"),
        ("s3://buc ket/x", "cannot be a bucket's name"),
        ("s3://bucket?versions", "cannot be a bucket's name"),
        ("s3://bucket/a b", "a prefix may have"),
        ("s3://bucket/a?b", "a prefix may have"),
        ("s3://bucket/ä", "a prefix may have"),
        ("s3://bucket//a", "no empty part"),
        ("s3://bucket/a/../b", r"no '\.\.'"),
        ("s3://bucket/" + "x" * 513, "more than 512"),
        ("s3://key:hush@bucket/a", "holds no credentials"),
        ("http://key:hush@host/bucket", r"'\.\.\.@host/bucket'"),
    ],
)
def test_what_is_no_location(url: str, said: str) -> None:
    with pytest.raises(LocationError, match=said) as caught:
        Location.parse(url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["http://localhost:9000", "https://s3.example.com/base"])
def test_an_endpoint(endpoint: str) -> None:
    assert check_endpoint(endpoint) == endpoint


@pytest.mark.parametrize(
    "endpoint",
    ["localhost:9000", "ftp://host", "https://", "http://host:x", "https://key:hush@host",
     "https://host?x=1"],
)  # fmt: skip
def test_what_is_no_endpoint(endpoint: str) -> None:
    with pytest.raises(LocationError, match="is no endpoint: expected http") as caught:
        check_endpoint(endpoint)
    assert "hush" not in str(caught.value)
