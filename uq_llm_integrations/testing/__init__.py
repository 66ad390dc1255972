"""Backends and servers that fail on demand, to test what is built on this package.

Example:
    from uq_llm_integrations.testing import ENGINE_FAULTS, FaultyBackend, seeded_plan

    plan = seeded_plan(ENGINE_FAULTS, only=["dies during", "NaN rows"], share=0.3, seed=7)
    model = UncertaintyModel(FaultyBackend(ScriptedBackend(["Paris"]), plan), max_retries=2)
"""

from uq_llm_integrations.testing.engine_faults import ENGINE_FAULTS, EngineFault
from uq_llm_integrations.testing.environment_faults import full_disk, jumping_clock
from uq_llm_integrations.testing.fault_plans import on_call, seeded_plan
from uq_llm_integrations.testing.faulty_backend import FaultyBackend
from uq_llm_integrations.testing.scripted_server import ScriptedServer
from uq_llm_integrations.testing.server_faults import SERVER_FAULTS, Fault

__all__ = [
    "ENGINE_FAULTS",
    "SERVER_FAULTS",
    "EngineFault",
    "Fault",
    "FaultyBackend",
    "ScriptedServer",
    "full_disk",
    "jumping_clock",
    "on_call",
    "seeded_plan",
]
