"""Backends and servers that fail on demand, to test what is built on this package.

Example:
    from uq_llm_integrations.testing import Fault, ScriptedServer

    with ScriptedServer(["Paris"]) as server:
        server.faults = [Fault(status=503)]
"""

from uq_llm_integrations.testing.scripted_server import ScriptedServer
from uq_llm_integrations.testing.server_faults import SERVER_FAULTS, Fault

__all__ = ["SERVER_FAULTS", "Fault", "ScriptedServer"]
