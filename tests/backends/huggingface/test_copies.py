"""Copies of a backend share the loaded model, and closing one harms no other."""

import asyncio
import copy
import gc
import os
import pickle
from dataclasses import replace

import pytest

from tests.backends.huggingface.test_architectures import PROMPT, ByteTokenizer, random_model
from uq_llm_integrations import (
    EngineError,
    HuggingFaceBackend,
    HybridBackend,
    Inspection,
    Request,
    ScriptedBackend,
)

REQUEST = Request(PROMPT, sampling={"max_tokens": 3, "temperature": 0})


class Generator(ScriptedBackend):
    """A generator that can sleep and has the tokens of the model on disk."""

    capabilities = replace(ScriptedBackend.capabilities, vocabulary_size=300)

    async def sleep(self) -> None: ...

    async def wake(self) -> None: ...


def pickled(backend):
    return pickle.loads(pickle.dumps(backend))


@pytest.fixture
def folder(tmp_path):
    """A small model on disk, which any process can load."""
    random_model("llama").save_pretrained(tmp_path)
    return str(tmp_path)


def generated(backend) -> tuple[int, ...]:
    return backend.run(backend.generate(REQUEST))[0].token_ids


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_is_equal_and_shares_the_loaded_model(folder, copied, loaded):
    with HuggingFaceBackend(folder, tokenizer=ByteTokenizer()) as original:
        tokens = generated(original)
        with copied(original) as twin:
            assert twin == original and twin.loop is not original.loop
            assert generated(twin) == tokens
        assert generated(original) == tokens
    assert len(loaded) == 1


def test_a_copy_goes_on_after_its_original_is_closed(folder):
    original = HuggingFaceBackend(folder, tokenizer=ByteTokenizer())
    tokens, twin = generated(original), copy.deepcopy(original)
    original.close()
    original.close()
    assert generated(twin) == tokens
    twin.close()
    with pytest.raises(EngineError, match="is closed"):
        generated(twin)


def test_a_copy_that_nothing_refers_to_keeps_no_model(folder, loaded):
    original = HuggingFaceBackend(folder, tokenizer=ByteTokenizer())
    generated(original)
    copy.deepcopy(original)
    original.close()
    gc.collect()
    assert [model() for model in loaded] == [None]


def test_backends_made_differently_are_not_equal(folder):
    tokenizer = ByteTokenizer()
    one, same, other = (HuggingFaceBackend(folder, tokenizer=tokenizer, max_n=n) for n in (4, 4, 5))
    assert one == same
    assert one != other


def in_child(work) -> int:
    """The exit code of a forked child that does some work: what the work returns."""
    child = os.fork()
    if not child:
        try:
            os._exit(work())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_gets_an_error_at_once(folder):
    def use() -> int:
        for run in (asyncio.run, backend.run):
            try:
                run(backend.generate(REQUEST))
            except EngineError as error:
                if "backend of its own" in str(error):
                    continue
            return 1
        backend.close()
        return 0

    with HuggingFaceBackend(folder, tokenizer=ByteTokenizer()) as backend:
        generated(backend)
        assert in_child(use) == 0
        assert generated(backend)


def test_a_copy_has_a_model_of_its_own_in_another_process(folder):
    with HuggingFaceBackend(folder, tokenizer=ByteTokenizer()) as backend:
        backend.run(backend.decode((65,)))
        data = pickle.dumps(backend)

        # Its scorer reads and writes, since its generator may sleep.
        hybrid = HybridBackend(Generator(["yes"]), backend, sequential=True)

        def use() -> int:
            copies = [pickle.loads(data), copy.copy(backend), copy.deepcopy(backend)]
            copies += [one(hybrid) for one in (copy.copy, copy.deepcopy, pickled)]
            return any(one.run(one.decode((65,))) != "A" for one in copies)

        assert in_child(use) == 0


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_of_a_hybrid_backend_shares_both_sides(folder, copied, loaded):
    tokenizer = ByteTokenizer()
    scorer = HuggingFaceBackend(folder, tokenizer=tokenizer)
    original = HybridBackend(Generator(["yes"]), scorer)
    assert len(original.run(original.inspect_all([PROMPT], Inspection()))) == 1
    twin = copied(original)
    assert twin == original
    original.close()
    assert len(twin.run(twin.inspect_all([PROMPT], Inspection()))) == 1
    assert len(loaded) == 1
    twin.close()
    with pytest.raises(EngineError, match="is closed"):
        twin.run(twin.inspect_all([PROMPT], Inspection()))
