"""Pages in headless Chromium, by its DevTools protocol: what they log, ask for, and are called."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
)  # fmt: skip  # one list

PATIENCE = 60
"""Seconds after which a browser that says nothing is taken to hang."""


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Start a browser with a new profile in a folder; yields its page."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        address = next(line for line in process.stderr if "DevTools listening" in line).split()[-1]
        with connect(address, max_size=None, open_timeout=PATIENCE) as socket:
            yield Page.of(socket)
    finally:
        process.kill()
        process.communicate()


@dataclass
class Page:
    """A page, and all that it has logged and asked for."""

    socket: ClientConnection
    session: str | None = None
    problems: list[str] = field(default_factory=list)
    """Errors and warnings of the console."""
    requests: list[str] = field(default_factory=list)
    """Addresses, the page's own first."""
    _number: int = 0
    _events: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, socket: ClientConnection) -> Page:
        page = cls(socket)
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            page.call(f"{domain}.enable")
        return page

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the result of a command; what happens meanwhile is noted."""
        self._number += 1
        session = {"sessionId": self.session} if self.session else {}
        command = {"id": self._number, "method": method, "params": parameters, **session}
        self.socket.send(json.dumps(command))
        while (message := self._next()).get("id") != self._number:
            pass
        assert "error" not in message, message
        return message["result"]

    def open(self, path: Path) -> None:
        """Open a file, and wait until all of it is there."""
        self.call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._next()
        self._events.clear()

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    def tab(self) -> str:
        """Press the tabulator; return the tag and the name of what has the focus then."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab",
                windowsVirtualKeyCode=9,
            )  # fmt: skip  # one key
        return self.evaluate(
            "document.activeElement.tagName + ' ' + (document.activeElement.getAttribute("
            "'aria-labelledby') || document.activeElement.textContent.trim())"
        )

    def names(self, role: str) -> list[str]:
        """Return the names that a screen reader has for what is of a role."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            one.get("name", {}).get("value", "")
            for one in nodes
            if one.get("role", {}).get("value") == role and not one["ignored"]
        ]

    def screenshot(self, path: Path, width: int, height: int) -> None:
        """Save a picture of what is seen in a window of this size."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=False,
        )  # fmt: skip  # one window
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def _next(self) -> dict[str, Any]:
        message = json.loads(self.socket.recv(timeout=PATIENCE))
        event, told = message.get("method"), message.get("params", {})
        if event == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif event == "Log.entryAdded" and told["entry"]["level"] in ("warning", "error"):
            self.problems.append(told["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("warning", "error"):
            self.problems.append(str(told["args"]))
        elif event == "Runtime.exceptionThrown":
            self.problems.append(str(told["exceptionDetails"]))
        elif event:
            self._events.append(event)
        return message
