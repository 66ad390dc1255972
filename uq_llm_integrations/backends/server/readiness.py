"""A line of progress on stderr until a server of this machine answers."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from argparse import Namespace
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection

from uq_llm_integrations.errors import ConfigurationError

_EVERY = 10.0
"""Seconds between two lines."""

_PAUSE = 0.25
_PATIENCE = 2.0
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int
    is_secure: bool = False
    socket_path: str | None = None

    @classmethod
    def of(cls, given: Namespace) -> Address:
        """Return that of the parsed arguments of `vllm serve`."""
        host = given.host or ""
        return cls(_ANY.get(host, host), given.port, bool(given.ssl_certfile), given.uds)

    def __str__(self) -> str:
        if self.socket_path:
            return f"the socket {self.socket_path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' * self.is_secure}://{host}:{self.port}/v1"

    @property
    def is_healthy(self) -> bool:
        """Whether a server answers, and its engine runs."""
        connection = self._connection()
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    @property
    def is_taken(self) -> bool:
        """Whether somebody listens there."""
        if self.socket_path:
            return False  # vLLM replaces what was left there
        try:
            socket.create_connection((self.host, self.port), _PATIENCE).close()
        except OSError:
            return False
        return True

    def _connection(self) -> HTTPConnection:
        if self.socket_path:
            return _SocketConnection(self.socket_path)
        if not self.is_secure:
            return HTTPConnection(self.host, self.port, timeout=_PATIENCE)
        context = ssl.create_default_context()  # the certificate may be for another name
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return HTTPSConnection(self.host, self.port, timeout=_PATIENCE, context=context)


class _SocketConnection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def report_readiness(address: Address, model: str) -> threading.Thread:
    """Say on stderr, from the returned thread, that the model loads, and when it is served.

    Raises ConfigurationError where somebody listens at the address: several API servers of
    vLLM would share the port with it, and each would get some of the requests.
    """
    if address.is_taken:
        raise ConfigurationError(
            f"port {address.port} of {address.host} is taken; choose another with --port"
        )
    waiting = threading.Thread(target=_report, args=(address, model), daemon=True)
    waiting.start()
    return waiting


def _report(address: Address, model: str) -> None:
    begun = time.monotonic()
    due = 0.0
    while not address.is_healthy:
        waited = time.monotonic() - begun
        if waited >= due:
            _say(f"loading {model} ... {waited:.0f} s")
            due += _EVERY
        time.sleep(_PAUSE)
    _say(f"{model} is served at {address} after {time.monotonic() - begun:.0f} s")


def _say(line: str) -> None:
    print(f"uq-llm: {line}", file=sys.stderr, flush=True)
