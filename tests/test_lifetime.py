"""Closing, copying and pickling of everything that holds a backend."""

import copy
import pickle
import threading

import pytest
from langchain_core.caches import InMemoryCache
from llama_index.core.callbacks import CallbackManager

import uq_llm_integrations as uq
from uq_llm_integrations import langchain, llama_index


class Closing(uq.ScriptedBackend):
    """Notes that it was closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1
        super().close()


def pickled(one):
    return pickle.loads(pickle.dumps(one))


MAKERS = {
    "UncertaintyModel": uq.UncertaintyModel,
    "LangChain chat": lambda backend, **given: langchain.ChatVLLMUncertainty(
        backend=backend, **given
    ),
    "LangChain completion": lambda backend, **given: langchain.VLLMUncertaintyLLM(
        backend=backend, **given
    ),
    "LlamaIndex": lambda backend, **given: llama_index.VLLMUncertaintyLLM(backend=backend, **given),
}
EVERY = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
FACES = pytest.mark.parametrize("make", list(MAKERS.values())[1:], ids=list(MAKERS)[1:])


@EVERY
async def test_a_model_is_closed_by_hand_and_at_the_end_of_a_block(make):
    backend = Closing(["Paris"])
    make(backend).close()
    with make(backend):
        pass
    async with make(backend):
        pass
    assert backend.closed == 3


@FACES
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))],
    ids=["copy", "pickle"],
)
def test_a_copy_is_equal_and_does_no_harm_to_the_original(make, duplicate):
    original = make(
        uq.ScriptedBackend(["Paris"]),
        temperature=0.5,
        uncertain_when="entropy > 2",
        strategy=uq.BestOfN(2),
    )
    copied = duplicate(original)
    assert copied == original
    for name in (*uq.Settings.model_fields, "backend"):
        assert getattr(copied, name) == getattr(original, name)
    assert repr(copied.core.identity) == repr(original.core.identity)
    assert copied.core.generate("?").text == "Paris"
    copied.close()
    assert original.core.generate("?").text == "Paris"


@FACES
def test_a_field_that_is_set_later_counts(make):
    llm = make(uq.ScriptedBackend(["Paris"] * 9), max_tokens=9)
    llm.core.generate("?")
    llm.max_tokens = 2
    assert llm.core.generate("?").text == "Pa"
    assert llm.model_copy(update={"max_tokens": 3}).core.generate("?").text == "Par"


def test_a_changed_copy_shares_the_engine():
    model = uq.UncertaintyModel(uq.ScriptedBackend(["Paris"]))
    changed = model.with_options(methods=["maxprob"], uncertain_when="maxprob > 0.1")
    assert changed.backend is model.backend
    assert changed.generate("?").decision.is_uncertain
    assert not model.generate("?").decision.is_uncertain


@FACES
def test_what_is_set_later_is_checked_like_an_argument(make):
    llm = make(uq.ScriptedBackend(["Paris"] * 9))
    llm.methods, llm.strategy = "entropy", "best_of_n"
    assert llm.core.settings.methods == ("entropy",)
    assert llm.core.settings.strategy == uq.BestOfN()
    llm.strategy = "best_of_m"
    with pytest.raises(uq.ConfigurationError, match="best_of_n"):
        llm.core.generate("?")


@FACES
def test_a_shallow_copy_does_not_follow_its_original(make):
    llm = make(uq.ScriptedBackend(["Paris"]), max_tokens=9)
    llm.core.generate("?")
    copied = copy.copy(llm)
    llm.max_tokens = 2
    assert copied.core.settings.max_tokens == 9


def test_the_settings_of_a_model_stay_as_they_are():
    model = uq.UncertaintyModel(uq.ScriptedBackend(["Paris"]))
    with pytest.raises(ValueError, match="frozen"):
        model.settings.max_tokens = 2


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled], ids=["copy", "pickle"])
@pytest.mark.parametrize("wrap", [lambda one: uq.Retry(one, "entropy > 2"), uq.RetryErrors])
def test_a_copied_retry_is_equal(wrap, duplicate):
    assert duplicate(wrap(uq.Single())) == wrap(uq.Single())


class Locked:
    """Cannot be pickled or copied, as handlers of callbacks and limiters of rates are."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


OWN_THINGS = {
    "LangChain chat": {
        "callbacks": [langchain.UncertaintyCallbackHandler()],
        "cache": InMemoryCache(),
    },
    "LangChain completion": {"callbacks": [langchain.UncertaintyCallbackHandler()]},
    "LlamaIndex": {"callback_manager": CallbackManager([]), "rate_limiter": Locked()},
}


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, pickled], ids=lambda one: one.__name__
)
@pytest.mark.parametrize("name", OWN_THINGS)
def test_what_serves_the_program_is_in_nobodys_way(name, duplicate):
    llm = MAKERS[name](uq.ScriptedBackend(["Paris"] * 9), max_tokens=2, **OWN_THINGS[name])
    for one in llm.__dict__.get("callbacks") or []:
        one.lock = threading.Lock()
    before = dict(llm.__dict__)
    copied = duplicate(llm)
    assert copied.core.generate("?").text == llm.core.generate("?").text == "Pa"
    assert {key: llm.__dict__[key] for key in before} == before


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, pickled], ids=lambda one: one.__name__
)
def test_a_model_is_copied_and_pickled(duplicate):
    model = uq.UncertaintyModel(
        uq.ScriptedBackend(["Paris"]), uncertain_when="entropy > 2", strategy="best_of_n"
    )
    copied = duplicate(model)
    assert copied == model and copied.identity == model.identity
    assert copied.generate("?").text == "Paris"
    assert uq.UncertaintyModel(backend=model.backend, settings=model.settings) == model
    assert copied.with_options(n=2) != model


@pytest.mark.parametrize("name", uq.METHODS)
def test_a_method_is_pickled_by_its_name(name):
    assert pickled(uq.METHODS[name]) is uq.METHODS[name]
    assert copy.deepcopy(uq.METHODS[name]) is uq.METHODS[name]


@pytest.mark.parametrize(
    "one",
    [
        *(kind() for kind in (uq.Single, uq.BestOfN, uq.SelfConsistency, uq.Stepwise)),
        uq.Retry(uq.BestOfN(2), "entropy > 2", temperatures=(0.3,)),
        uq.Abstain(uq.RetryErrors(uq.Single()), "entropy > 2", action="abstain"),
        (uq.score("entropy") > 1) & ~(uq.agreement() > 0.5) | (uq.worst_window("entropy", 8) > 3),
        uq.MethodOptions(samples=3, entailment=uq.ServedJudge()),
        uq.Settings(strategy="best_of_n", uncertain_when="entropy > 2"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_is_configured_is_pickled(one):
    assert pickled(one) == copy.deepcopy(one) == one


def test_a_ready_engine_stays_where_it_is_and_harms_nobody():
    class Ready(uq.ScriptedBackend):
        def __reduce__(self):
            raise uq.ConfigurationError("a backend on a ready engine cannot be pickled")

    backend = Ready(["Paris"])
    with pytest.raises(uq.ConfigurationError, match="ready engine"):
        pickle.dumps(langchain.ChatVLLMUncertainty(backend=backend))
    llm = llama_index.VLLMUncertaintyLLM(backend=backend)
    copied = pickled(llm)
    with pytest.raises(uq.ConfigurationError, match=r"backend stayed .* ready engine"):
        copied.complete("?")
    assert llm.complete("?").text == "Paris"
