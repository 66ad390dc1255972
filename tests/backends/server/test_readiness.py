"""The line of progress until a server answers."""

import socket
import threading
from argparse import Namespace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from uq_llm_integrations import ConfigurationError
from uq_llm_integrations.backends.server.readiness import Address, report_readiness

GIVEN = {"host": None, "port": 8000, "ssl_certfile": None, "uds": None}


class Loading(BaseHTTPRequestHandler):
    """Answers only the third question whether it is healthy."""

    asked = 0

    def do_GET(self):
        type(self).asked += 1
        self.send_response(200 if (self.path, self.asked) == ("/health", 3) else 503)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, "http://127.0.0.1:8000/v1"),
        ({"host": "0.0.0.0", "port": 9}, "http://127.0.0.1:9/v1"),
        ({"host": "::"}, "http://[::1]:8000/v1"),
        ({"host": "10.0.0.1", "ssl_certfile": "a.pem"}, "https://10.0.0.1:8000/v1"),
        ({"uds": "/run/vllm.sock"}, "the socket /run/vllm.sock"),
    ],
)
def test_where_vllm_will_listen_is_read_off_its_flags(given, shown):
    assert str(Address.of(Namespace(**GIVEN | given))) == shown


def test_it_says_when_the_server_is_healthy(capsys):
    with socket.create_server(("127.0.0.1", 0)) as one:
        address = Address("127.0.0.1", one.getsockname()[1])
    waiting = report_readiness(address, "org/name")
    with HTTPServer((address.host, address.port), Loading) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        waiting.join(60)
        server.shutdown()
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "uq-llm: loading org/name ... 0 s"
    assert last.startswith(f"uq-llm: org/name is served at {address} after ")


def test_a_port_that_is_taken_is_refused():
    with HTTPServer(("127.0.0.1", 0), Loading) as server:
        port = server.server_port
        with pytest.raises(ConfigurationError, match=rf"port {port} .*--port"):
            report_readiness(Address("127.0.0.1", port), "org/name")
