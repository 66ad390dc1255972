"""The model itself: what it refuses, and what it finds out once the engine runs."""

import asyncio
import threading
from dataclasses import replace

import pytest

from uq_llm_integrations import (
    Abstain,
    BestOfN,
    ConfigurationError,
    EarlyStop,
    EngineTimeoutError,
    InvalidRequestError,
    MethodOptions,
    Retry,
    RetryErrors,
    ScriptedBackend,
    SelfConsistency,
    Settings,
    Single,
    Stepwise,
    UncertaintyModel,
    agreement,
    register_method,
    score,
    worst_window,
)

WRONG = [1, -1, 1.5, float("nan"), "x", b"x", [], [1], {}, True, object()]


@pytest.mark.parametrize("option", Settings.model_fields)
@pytest.mark.parametrize("value", WRONG, ids=[repr(one).split(" at ")[0] for one in WRONG])
def test_a_value_works_or_is_refused_in_our_words(option, value):
    try:
        model = UncertaintyModel(ScriptedBackend(["Paris"]), **{option: value})
    except (ConfigurationError, InvalidRequestError) as error:
        assert str(error)
    else:
        assert model.generate("?").candidates


@pytest.mark.parametrize(
    "make",
    [
        lambda: UncertaintyModel(None),
        lambda: UncertaintyModel(ScriptedBackend(["Paris"]), {"n": 2}),
        lambda: MethodOptions(samples="x"),
        lambda: MethodOptions(temperature="x"),
        lambda: MethodOptions(stated_confidence="("),
        lambda: Settings(early_stop=EarlyStop(float("nan"))),
        lambda: Settings(early_stop={"above": 2, "window": 0}),
        lambda: BestOfN(by=3),
        lambda: BestOfN(power="x"),
        lambda: Retry("single", "entropy > 2"),
        lambda: Retry(Single(), "entropy > 2", temperatures="x"),
        lambda: RetryErrors(None),
        lambda: Abstain(None, "entropy > 2"),
        lambda: worst_window("entropy", "x"),
        lambda: score(3),
        lambda: register_method(lambda context: []),
    ],
)
def test_what_can_never_work_is_refused_at_construction(make):
    with pytest.raises((ConfigurationError, InvalidRequestError)):
        make()


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.generate(3),
        lambda model: model.generate_all("two prompts"),
        lambda model: model.chat([]),
        lambda model: model.chat(None),
        lambda model: model.chat([{"x": 1}]),
        lambda model: list(model.stream([])),
    ],
)
def test_a_call_with_the_wrong_things_is_refused(call):
    with pytest.raises(InvalidRequestError):
        call(UncertaintyModel(ScriptedBackend(["Paris"])))


class Learning(ScriptedBackend):
    """Knows only after its first use that it can be inspected."""

    @property
    def capabilities(self):
        found = ScriptedBackend.capabilities
        return found if self.requests else replace(found, why_no_activations="not known yet")


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.generate("?"),
        lambda model: model.chat("?").result,
        lambda model: list(model.stream("?"))[-1].result,
        lambda model: model.score("?", "!"),
        lambda model: model.score_truncated("?", ["!"])[0],
    ],
    ids=["generate", "chat", "stream", "score", "score_truncated"],
)
def test_all_affordable_methods_grow_with_what_is_known(call):
    backend = Learning(["Paris"])
    model = UncertaintyModel(backend, methods="all affordable")
    before = len(model.methods)
    UncertaintyModel(backend).generate("?")
    call(model)
    assert len(model.methods) > before


def test_the_methods_are_never_seen_half_prepared():
    changing = ScriptedBackend.capabilities

    class Changing(ScriptedBackend):
        @property
        def capabilities(self):
            return replace(changing, context_length=4096 + next(lengths) % 2)

    lengths, seen, is_over = iter(range(10**9)), set(), threading.Event()
    model = UncertaintyModel(Changing(["Paris"]), methods="all affordable")

    def watch() -> None:
        while not is_over.is_set():
            seen.add(model.methods)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(50):
        model.generate("?", methods=["entropy"])
        model.score("?", "!")
    is_over.set()
    watcher.join()
    assert ("all affordable",) not in seen


def test_a_condition_that_compares_samples_is_refused_where_there_is_one_answer():
    """A given text, a truncated one, and an answer of steps have nothing to agree with."""
    given = {"strategy": SelfConsistency(4), "uncertain_when": agreement() < 0.5}
    model = UncertaintyModel(ScriptedBackend(["Paris"]), temperature=0.7, **given)
    assert not model.generate("?").decision.is_uncertain
    for score_text in (model.score, lambda *given: model.score_truncated("?", ["Paris"])):
        with pytest.raises(ConfigurationError, match="compares samples"):
            score_text("?", "Paris")
    for strategy in (Stepwise(2), Retry(Stepwise(2), agreement() < 0.5)):
        with pytest.raises(ConfigurationError, match="compares samples"):
            model.with_options(strategy=strategy, n=4)


def test_a_model_computes_the_scores_of_its_own_conditions():
    model = UncertaintyModel(
        ScriptedBackend(["Paris"]),
        methods=["entropy"],
        strategy=Retry(Single(), "maxprob > 99"),
        uncertain_when="mean_nll > 99",
    )
    result = model.generate("?")
    assert result.scores[0].keys() == {"entropy", "maxprob", "mean_nll"}
    assert not result.decision.is_uncertain
    assert not model.score("?", "Paris").decision.is_uncertain


@pytest.mark.parametrize("option", ["uncertain_when", "stop_if"])
def test_a_window_over_what_the_backend_cannot_give_is_refused(option):
    backend = ScriptedBackend(["Paris"])
    backend.capabilities = replace(backend.capabilities, why_inexact="only the top k are seen")
    with pytest.raises(ConfigurationError, match="self_certainty needs exact statistics"):
        UncertaintyModel(backend, **{option: "worst_window(self_certainty, 4) > -1"})


class Stalling(ScriptedBackend):
    """Streams one piece, and nothing after it."""

    is_closed = False

    async def stream(self, request):
        try:
            async for piece in super().stream(request):
                yield piece
                await asyncio.sleep(60)
        finally:
            self.is_closed = True


async def test_a_stream_that_does_not_go_on_in_time_is_an_error():
    model, shown = UncertaintyModel(Stalling(["Paris"]), timeout=0.05), []
    with pytest.raises(EngineTimeoutError, match=r"no next piece within 0\.05 seconds"):
        async for piece in model.astream("?"):
            shown.append(piece.part.content)
    assert shown == ["P"] and model.backend.is_closed


@pytest.mark.parametrize("strategy", ["single", "best_of_n"])
def test_a_stream_that_does_not_begin_in_time_is_an_error(strategy):
    model = UncertaintyModel(
        ScriptedBackend(["Paris"], delay=60), timeout=0.05, strategy=strategy, temperature=1.0
    )
    with pytest.raises(EngineTimeoutError, match="no next piece within"):
        list(model.stream("?"))


def test_a_stream_may_take_longer_than_each_of_its_pieces():
    model = UncertaintyModel(ScriptedBackend(["Paris"]), timeout=60)
    assert "".join(one.part.content for one in model.stream("?")) == "Paris"
