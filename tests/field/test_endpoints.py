"""Test wrong S3 endpoints: exit code 2 within seconds, and a message that names the setting."""

from __future__ import annotations

import datetime
import http.server
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import botocore.exceptions as bx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import skinbatch
from skinbatch.config import parse_config
from skinbatch.errors import UsageError
from skinbatch.storage.traffic import Traffic
from tests.ray_cluster import free_ports

# What a server answers to every request: status, content type, body.
Answer = tuple[int, str, str]
CONSOLE: Answer = (200, "text/html", "<html><body><h1>Sign in</h1></body></html>")
NO_PAGE: Answer = (404, "text/html", "<html>no such page</html>")
PLAIN_TO_TLS: Answer = (400, "text/plain", "Client sent an HTTP request to an HTTPS server.\n")
REGION: Answer = (
    400,
    "application/xml",
    "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is malformed; the region is wrong"
    "</Message><Region>eu-west-7</Region></Error>",
)


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """Start a server that gives one answer to everything; return its port. tls: a context."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(answer: Answer, tls: ssl.SSLContext | None = None) -> int:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, kind, body = answer
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *args: object) -> None: ...

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return int(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def own_certificate(tmp_path: Path) -> ssl.SSLContext:
    """Return a certificate that no authority has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    )
    made = (
        made.serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(
        made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return context


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test-key")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def refusal(endpoint: str, fake_pack: str, out: Path) -> str:
    """Return the message of a run from a bucket at this endpoint, which must soon end as wrong use."""
    config = parse_config({"storage": {"endpoint_url": endpoint}})
    started = time.monotonic()
    with pytest.raises(UsageError) as refused:
        skinbatch.score("s3://bucket/photos", out, engine="local", pack=fake_pack, config=config)
    assert time.monotonic() - started < 30
    assert not (out / "_skinbatch").exists()
    message = str(refused.value)
    assert (
        "botocore" not in message and "Error" not in message and "HTTPConnectionPool" not in message
    )
    return message


def test_a_port_where_nobody_listens(fake_pack: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    message = refusal(f"http://127.0.0.1:{port}", fake_pack, tmp_path / "out")
    assert f"http://127.0.0.1:{port} refuses the connection" in message
    assert "AWS_ENDPOINT_URL" in message and "endpoint_url in [storage]" in message


def test_a_host_that_does_not_exist(fake_pack: str, tmp_path: Path) -> None:
    message = refusal("http://no-such-host.invalid:9000", fake_pack, tmp_path / "out")
    assert "no-such-host.invalid:9000" in message and "AWS_ENDPOINT_URL" in message


def test_https_of_a_server_that_speaks_http(
    serve: Callable[..., int], fake_pack: str, tmp_path: Path
) -> None:
    message = refusal(f"https://127.0.0.1:{serve(CONSOLE)}", fake_pack, tmp_path / "out")
    assert "write http:// instead of https://" in message


def test_http_of_a_server_that_speaks_https(
    serve: Callable[..., int], own_certificate: ssl.SSLContext, fake_pack: str, tmp_path: Path
) -> None:
    message = refusal(
        f"http://127.0.0.1:{serve(CONSOLE, own_certificate)}", fake_pack, tmp_path / "out"
    )
    assert "write https:// instead of http://" in message
    message = refusal(f"http://127.0.0.1:{serve(PLAIN_TO_TLS)}", fake_pack, tmp_path / "out")
    assert "write https:// instead of http://" in message


def test_a_certificate_of_nobody(
    serve: Callable[..., int], own_certificate: ssl.SSLContext, fake_pack: str, tmp_path: Path
) -> None:
    message = refusal(
        f"https://127.0.0.1:{serve(CONSOLE, own_certificate)}", fake_pack, tmp_path / "out"
    )
    assert "certificate" in message and "AWS_CA_BUNDLE" in message


@pytest.mark.parametrize("answer", [CONSOLE, NO_PAGE], ids=["page", "no page"])
def test_the_port_of_a_web_console(
    answer: Answer, serve: Callable[..., int], fake_pack: str, tmp_path: Path
) -> None:
    assert "is not an S3 server" in refusal(
        f"http://127.0.0.1:{serve(answer)}", fake_pack, tmp_path / "out"
    )


def test_another_region(serve: Callable[..., int], fake_pack: str, tmp_path: Path) -> None:
    message = refusal(f"http://127.0.0.1:{serve(REGION)}", fake_pack, tmp_path / "out")
    assert "another region eu-west-7" in message and "AWS_DEFAULT_REGION" in message


def test_a_request_that_fails_twice_is_told_once_it_has() -> None:
    traffic, heard = Traffic(), list[str]()
    with traffic.heard_by(heard.append):
        busy = (SimpleNamespace(status_code=503), {"Error": {"Code": "SlowDown"}})
        traffic.answered(attempts=1, response=busy)
        assert heard == []
        traffic.answered(attempts=2, response=busy)
        lost = bx.EndpointConnectionError(endpoint_url="http://127.0.0.1:9000/bucket/key.jpg")
        traffic.answered(attempts=3, caught_exception=lost)
    assert heard[0] == "the store answers 503 SlowDown"
    assert "http://127.0.0.1:9000 refuses" in heard[1] and "key.jpg" not in heard[1]
    traffic.answered(attempts=2, response=busy)
    assert len(heard) == 2
