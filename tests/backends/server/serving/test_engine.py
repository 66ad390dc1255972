"""The columns of whole batches, computed where the log-probabilities are."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.v1.outputs import LogprobsTensors

from uq_llm_integrations.backends.server.serving import engine
from uq_llm_integrations.backends.server.serving.columns import has_columns, rows_of
from uq_llm_integrations.backends.server.serving.marks import MARK, WIDTH
from uq_llm_integrations.backends.token_statistics import (
    column,
    dense_rows,
    exact_statistics,
)

SIZE = 700


def log_probabilities(rows: int, *, forbidden: int = 0) -> torch.Tensor:
    logits = torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(rows)) * 3
    logits[:, SIZE - forbidden :] = -torch.inf
    return logits.log_softmax(-1)


def gather(logprobs, count, token_ids) -> LogprobsTensors:
    top, ids = torch.topk(logprobs, count, dim=-1)
    own = logprobs.gather(-1, token_ids[:, None])
    ranks = (logprobs >= own).sum(-1)
    ids = torch.cat([token_ids[:, None], ids], dim=1).to(torch.int32)
    return LogprobsTensors(ids, torch.cat([own, top], dim=1), ranks)


def marked(*, scored_from: int = -1, is_all: bool = False, **options) -> SamplingParams:
    return SamplingParams(extra_args={MARK: [scored_from, is_all]}, **options)


@pytest.mark.parametrize("forbidden", [0, 690])
@pytest.mark.parametrize("is_all", [True, False])
def test_rows_follow_from_the_whole_distributions(forbidden, is_all):
    logprobs, step = log_probabilities(4, forbidden=forbidden), engine.Step()
    tokens = torch.tensor([0, 3, 5, 9])
    step.samples = engine.Wanted(True, bool(forbidden), is_all)
    given = engine.scores_of(step, lambda logits: logits, logprobs + 7)
    found = engine.gathered(step, gather, given, 0 if is_all else 2, tokens)
    assert found.logprobs.shape == (4, (1 if is_all else 3) + WIDTH)
    ranks = (logprobs >= logprobs.gather(-1, tokens[:, None])).sum(-1)
    assert found.selected_token_ranks.tolist() == ranks.tolist()
    rows = rows_of(found.logprob_token_ids.numpy(), found.selected_token_ranks.numpy())
    whole = logprobs.double().numpy()
    whole -= np.logaddexp.reduce(whole, -1, keepdims=True)
    expected = exact_statistics(dense_rows(whole))
    for name, values in exact_statistics(rows).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-6, atol=1e-7, err_msg=name)
    own = whole[np.arange(4), tokens.numpy()]
    np.testing.assert_allclose(column(rows, "logprob"), own, rtol=0, atol=5e-7)


def test_nothing_is_computed_that_nobody_wants():
    step = engine.Step()
    found = engine.gathered(step, gather, log_probabilities(2), 3, torch.tensor([1, 2]))
    assert not has_columns(found.logprobs.numpy()) and found.logprobs.shape == (2, 4)


def test_of_each_prompt_is_computed_what_its_request_wants():
    step = engine.Step()
    step.prompts = iter([True, False])
    wanted = engine.gathered(step, gather, log_probabilities(3), 1 + WIDTH, torch.arange(3))
    other = engine.gathered(step, gather, log_probabilities(2), 4, torch.arange(2))
    assert wanted.logprobs.shape == (3, 2 + WIDTH) and has_columns(wanted.logprobs.numpy())
    assert other.logprobs.shape == (2, 5) and not has_columns(other.logprobs.numpy())


def test_a_batch_is_wanted_if_any_of_it_is():
    plain, grammar = SamplingParams(), SamplingParams()
    grammar.structured_outputs = SimpleNamespace()
    assert engine.wanted_of([plain, None]) == engine.NOTHING
    assert engine.wanted_of([plain, marked(), grammar]) == engine.Wanted(True, True, False)
    slots = {0: engine.wanted_of([plain]), 5: engine.wanted_of([marked()])}
    assert engine.any_wanted(slots, np.array([0, 7])) == engine.NOTHING
    assert engine.any_wanted(slots, np.array([0, 5])).is_wanted


def test_log_probabilities_are_computed_where_any_of_a_batch_needs_them():
    alone = marked(is_all=True, logprobs=0)
    for batch, is_all in (
        ([alone, alone], True),
        ([alone, SamplingParams()], True),
        ([alone, marked(logprobs=0)], False),
        ([alone, SamplingParams(logprobs=0)], False),
        ([alone, SamplingParams(logprob_token_ids=[3])], False),
    ):
        step, logits = engine.Step(), log_probabilities(2) + 7
        step.samples = engine.wanted_of(batch)
        assert step.samples.is_all is is_all
        scores = engine.scores_of(step, lambda given: given.log_softmax(-1), logits)
        assert torch.allclose(scores, logits if is_all else log_probabilities(2), atol=1e-5)
        assert scores is not logits  # these are changed before a token is sampled


@pytest.mark.parametrize(
    "value",
    [None, 3, "1", [1], [1, 2], ["0", True], [1.0, True], [True, True], [1, True, 2], {"a": 1}],
)
def test_a_malformed_mark_is_none(value):
    assert engine.wanted_of([SamplingParams(extra_args={MARK: value})]) == engine.NOTHING


def test_the_v2_runner_writes_each_prompts_columns_at_their_own_place():
    """Two prompts want them, the first with one top log-probability, the second with none."""
    logits = log_probabilities(6)
    found = gather(logits, 1 + WIDTH, torch.arange(6))
    batch = engine.PromptBatch()
    widths = {
        2: engine.prompt_width(marked(scored_from=0, prompt_logprobs=1 + WIDTH)),
        4: engine.prompt_width(marked(prompt_logprobs=3)),
        7: engine.prompt_width(marked(scored_from=0, prompt_logprobs=WIDTH)),
    }
    assert widths == {2: 2, 4: None, 7: 1}
    batch.begin(widths, [2, 4, 7], [0, 2, 3, 6])
    for chunk in ([0, 1, 2, 3], [4, 5]):
        part = LogprobsTensors(*(one[chunk] for one in found[:3]))
        batch.see(part, logits[chunk])
    plain_ids, plain = found.logprob_token_ids.clone(), found.logprobs.clone()
    ids, logprobs, ranks = batch.written(
        (found.logprob_token_ids, found.logprobs, found.selected_token_ranks)
    )
    for start, end, width in ((0, 2, 2 + WIDTH), (3, 6, 1 + WIDTH)):
        own = ids[start:end, :width].numpy()
        assert has_columns(logprobs[start:end, :width].numpy())
        expected = exact_statistics(dense_rows(logits[start:end].double().numpy()))
        rows = rows_of(own, ranks[start:end].numpy())
        np.testing.assert_allclose(
            exact_statistics(rows)["entropy"], expected["entropy"], atol=1e-5
        )
    assert torch.equal(ids[2], plain_ids[2]) and torch.equal(logprobs[2], plain[2])
    assert torch.equal(ids[:2, :2], plain_ids[:2, :2])
    batch.end()
    assert batch.written((plain_ids, plain, ranks))[0] is plain_ids


@pytest.mark.parametrize(("scored_from", "most"), [(-1, None), (0, 0), (1, 0), (129, 128)])
def test_the_cache_gives_only_what_comes_before_the_scored_tokens(scored_from, most):
    params = marked(scored_from=scored_from)
    assert engine.most_cached(params) == most
    if most is not None:
        find = engine.limited(lambda hashes, length: (hashes, length), most)
        assert find("h", 500) == ("h", most)
        assert find(block_hashes="h", max_cache_hit_length=0) == ("h", 0)
