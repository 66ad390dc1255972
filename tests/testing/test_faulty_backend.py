"""A backend that fails as planned: what a user tests their own fallbacks with."""

import asyncio

import pytest

from uq_llm_integrations import (
    ConfigurationError,
    EngineClosedError,
    EngineDeadError,
    EngineError,
    Request,
    ScriptedBackend,
    UncertaintyModel,
)
from uq_llm_integrations.testing import (
    ENGINE_FAULTS,
    SERVER_FAULTS,
    EngineFault,
    FaultyBackend,
    on_call,
    seeded_plan,
)

PROMPT = Request((65,))


def backend(plan) -> FaultyBackend:
    return FaultyBackend(ScriptedBackend(["Paris"]), plan)


def test_without_a_fault_it_is_the_other_backend():
    with backend(lambda request: None) as faulty:
        (found,) = faulty.run(faulty.generate(PROMPT))
        pieces = list(faulty.iterate(faulty.stream(PROMPT)))
        scored = faulty.run(faulty.score((65,), (66,)))
    assert found.text == "".join(one.text for one in pieces) == "Paris"
    assert len(scored.trace) == 1 and faulty.faults == []


def test_the_same_seed_gives_the_same_faults_in_any_order():
    requests = [Request((one,)) for one in range(30)]

    def names(seed: int, order) -> dict:
        plan = seeded_plan(ENGINE_FAULTS, share=0.5, seed=seed)
        return {one.prompt_ids: (found := plan(one)) and found.name for one in order}

    first = names(7, requests)
    assert first == names(7, reversed(requests)) != names(8, requests)
    assert None in first.values() and len({*first.values()}) > 3


@pytest.mark.parametrize("wrong", [{"only": ["NaN row"]}, {"share": 1.5}, {"share": -1}])
def test_what_is_no_plan_is_refused(wrong):
    with pytest.raises(ConfigurationError):
        seeded_plan(SERVER_FAULTS, **wrong)


@pytest.mark.parametrize(("when", "pieces"), [("before", 0), ("during", 2), ("after", 5)])
def test_a_stream_dies_where_it_is_planned(when, pieces):
    fault = EngineFault("dies", when, at=2, error=EngineDeadError)
    with backend(on_call(1, fault)) as faulty:
        seen = []
        with pytest.raises(EngineDeadError, match="as planned: dies"):
            for piece in faulty.iterate(faulty.stream(PROMPT)):
                seen.append(piece)
        assert len(seen) == pieces
        assert faulty.run(faulty.generate(PROMPT))[0].text == "Paris"


def test_the_third_call_runs_out_of_memory():
    fault = EngineFault("out of memory", error=EngineError)
    with UncertaintyModel(backend(on_call(3, fault))) as model:
        assert [model.generate("?").text for _ in range(2)] == ["Paris", "Paris"]
        with pytest.raises(EngineError, match="out of memory"):
            model.generate("?")
        assert model.generate("?").text == "Paris"


def test_a_retry_goes_past_a_fault():
    plan = on_call(1, EngineFault("dies", error=EngineDeadError))
    with UncertaintyModel(backend(plan), max_retries=1) as model:
        assert model.generate("?").text == "Paris"


def test_a_retry_never_continues_a_stream_of_which_something_was_shown():
    fault = EngineFault("dies", "during", at=2, error=EngineDeadError)
    shown = []
    with UncertaintyModel(backend(on_call(1, fault)), max_retries=3) as model:
        with pytest.raises(EngineDeadError, match="as planned: dies"):
            for piece in model.stream([{"role": "user", "content": "?"}]):
                shown.append(piece.part.content)
        assert "".join(shown) == "Pa"
        assert len(model.backend.faults) == 1


async def test_a_call_that_hangs_ends_when_the_backend_is_closed():
    faulty = backend(lambda request: EngineFault("hangs", hangs=True))
    call = asyncio.ensure_future(faulty.generate(PROMPT))
    await asyncio.sleep(0)
    faulty.close()
    with pytest.raises(EngineClosedError):
        await call
