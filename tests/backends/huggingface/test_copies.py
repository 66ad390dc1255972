"""Copies of a backend share the loaded model, and closing one harms no other."""

import asyncio
import copy
import os
import pickle

import pytest

from tests.backends.huggingface.test_architectures import PROMPT, ByteTokenizer, random_backend
from uq_llm_integrations import (
    EngineError,
    HuggingFaceBackend,
    HybridBackend,
    Inspection,
    Request,
    ScriptedBackend,
)

REQUEST = Request(PROMPT, sampling={"max_tokens": 3, "temperature": 0})


def pickled(backend):
    return pickle.loads(pickle.dumps(backend))


@pytest.fixture
def folder(tmp_path):
    """A small model on disk, which any process can load."""
    with random_backend("llama") as backend:
        model, _ = backend._thread.run(backend._thread.model)
        model.save_pretrained(tmp_path)
    return str(tmp_path)


def generated(backend) -> tuple[int, ...]:
    return backend.run(backend.generate(REQUEST))[0].token_ids


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_is_equal_and_shares_the_loaded_model(folder, copied):
    with HuggingFaceBackend(folder, tokenizer=ByteTokenizer()) as original:
        tokens = generated(original)
        with copied(original) as twin:
            assert twin == original and twin.loop is not original.loop
            assert twin._thread is original._thread
            assert generated(twin) == tokens
        assert generated(original) == tokens


def test_a_copy_goes_on_after_its_original_is_closed(folder):
    original = HuggingFaceBackend(folder, tokenizer=ByteTokenizer())
    tokens, twin = generated(original), copy.deepcopy(original)
    original.close()
    original.close()
    assert generated(twin) == tokens
    twin.close()
    with pytest.raises(EngineError, match="is closed"):
        generated(twin)


def test_a_copy_that_nothing_refers_to_keeps_no_model(folder):
    original = HuggingFaceBackend(folder, tokenizer=ByteTokenizer())
    generated(original)
    copy.deepcopy(original)
    original.close()
    assert original._thread._weights is None


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

        hybrid = HybridBackend(ScriptedBackend(["yes"]), backend)

        def load() -> int:
            copies = [pickle.loads(data), copy.copy(backend), copy.deepcopy(backend)]
            copies += [one(hybrid)._pair.scorer for one in (copy.copy, copy.deepcopy, pickled)]
            return any(one._thread._pid != os.getpid() for one in copies)

        assert in_child(load) == 0


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_of_a_hybrid_backend_shares_both_sides(folder, copied):
    tokenizer = ByteTokenizer()
    generator, scorer = ScriptedBackend(["yes"]), HuggingFaceBackend(folder, tokenizer=tokenizer)
    original = HybridBackend(generator, scorer)
    original._pair.is_checked = True  # the tokenizers differ
    twin = copied(original)
    assert twin == original and twin._pair is original._pair
    original.close()
    assert len(twin.run(twin.inspect_all([PROMPT], Inspection()))) == 1
    twin.close()
    with pytest.raises(EngineError, match="is closed"):
        twin.run(twin.inspect_all([PROMPT], Inspection()))
