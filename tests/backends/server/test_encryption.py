"""Servers over TLS: whose certificate cannot be checked is told nothing; keys go nowhere else."""

import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from shutil import which

import pytest

from uq_llm_integrations import ConfigurationError, EngineDeadError, Request, VLLMServerBackend
from uq_llm_integrations.backends.server.connections import Connections
from uq_llm_integrations.testing import Fault

PROMPT = tuple(b"The capital of France is")


def test_certificates_and_names_are_checked():
    context = Connections()._context
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname


class Listening(BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    seen: list[str]

    def do_GET(self):
        self.seen.append(str(self.headers))
        self.send_error(404)

    do_POST = do_GET  # noqa: N815  # as the standard library calls it

    def log_message(self, *given):
        pass


@pytest.fixture
def impostor(tmp_path):
    """A server with a certificate that nobody vouches for, and what it was sent."""
    if which("openssl") is None:
        pytest.skip("no openssl makes a certificate here")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    made += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    handler = type("Handler", (Listening,), {"seen": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *given: None  # a handshake that the client ends
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1], handler.seen, certificate
        server.shutdown()
        thread.join()


def test_a_certificate_that_nobody_vouches_for_is_refused_before_anything_is_sent(impostor):
    port, seen, _ = impostor
    with (
        VLLMServerBackend(f"https://127.0.0.1:{port}", api_key="secret-key") as backend,
        pytest.raises(EngineDeadError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        backend.run(backend.encode("x"))
    assert seen == []


def test_a_certificate_of_ones_own_is_trusted_by_its_variable(impostor, monkeypatch):
    port, seen, certificate = impostor
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with (
        VLLMServerBackend(f"https://127.0.0.1:{port}", api_key="secret-key") as backend,
        pytest.raises(ConfigurationError),
    ):
        backend.run(backend.encode("x"))
    assert "Bearer secret-key" in seen[0]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("is_stream", [False, True])
def test_nothing_follows_a_redirection(serve, connect, status, is_stream):
    elsewhere, server = serve(), serve()
    backend = connect(server, api_key="secret-key", headers={"X-Team": "blue"})
    location = {"Location": f"{elsewhere.url}/v1/completions"}
    server.always = Fault(status=status, headers=location)
    with pytest.raises(ConfigurationError, match="redirects"):
        if is_stream:
            list(backend.iterate(backend.stream(Request(PROMPT))))
        else:
            backend.run(backend.generate(Request(PROMPT)))
    assert elsewhere.headers == []
    assert server.headers[-1]["authorization"] == "Bearer secret-key"
