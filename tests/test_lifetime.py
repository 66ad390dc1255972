"""Closing, copying and pickling of everything that holds a backend."""

import copy
import pickle

import pytest

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
    copied.close()
    assert original.core.generate("?").text == copied.core.generate("?").text == "Paris"


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
