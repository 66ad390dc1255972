"""The entry points: what vLLM calls in each of its processes.

Without `VLLM_PLUGINS` vLLM calls every plugin that is installed, in embedded engines, too. So
nothing happens, and nothing is imported, unless the variable names this one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from uq_llm_integrations.backends.server.serving.marks import NAME, VARIABLE, is_switched_on

if TYPE_CHECKING:
    from argparse import Namespace

    from fastapi import FastAPI
    from starlette.datastructures import State
    from vllm.engine.protocol import EngineClient


def register() -> None:
    """Put the hooks of the engine in place; raises EngineStartError where one has moved.

    vLLM calls it in the API server, in the engine and in its workers.
    """
    if not is_switched_on(os.environ.get(VARIABLE)):
        return
    from uq_llm_integrations.backends.server.serving import installation

    installation.install(installation.Place.ENGINE)


class ServingPlugin:
    """The routes, and the hooks of the API server."""

    name = NAME
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Put the hooks of the API server in place, and add the routes."""
        from uq_llm_integrations.backends.server.serving import installation, routes

        installation.install(installation.Place.API_SERVER)
        app.include_router(routes.router())

    async def init_state(
        self, engine_client: EngineClient | None, state: State, args: Namespace
    ) -> None:
        """Refuse a server whose figures would be wrong, and keep what the routes need."""
        from uq_llm_integrations.backends.server.serving import routes, start_checks

        if engine_client is None:
            return
        start_checks.check_server(engine_client.vllm_config)
        # Where vLLM should call it otherwise, no template is trusted.
        trusts = getattr(args, "trust_request_chat_template", False)
        routes.prepare(state, engine_client, trusts_templates=trusts)
