"""The probe alone: its bookkeeping, and one class for each of vLLM's model runners."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext

from uq_llm_integrations.backends.token_statistics import SUMS, column, dense_rows, read_rows
from uq_llm_integrations.backends.vllm.worker import extension as probing
from uq_llm_integrations.backends.vllm.worker import recorder as recording
from uq_llm_integrations.backends.vllm.worker.early_stop import EarlyStopper
from uq_llm_integrations.backends.vllm.worker.protocol import REQUEST_KEY, STOP_KEY, probe_name

SIZE = 31


@pytest.fixture
def recorder(monkeypatch) -> recording.Recorder:
    recorder = recording.Recorder()
    monkeypatch.setattr(probing, "RECORDER", recorder)
    return recorder


def params(name: str | None, **sampling) -> SamplingParams:
    return SamplingParams(extra_args={REQUEST_KEY: name} if name else None, **sampling)


def logits_of(*seeds: int) -> torch.Tensor:
    """One row for each seed, so that a row can be recognised in what was recorded."""
    rows = [np.random.default_rng(seed).normal(size=SIZE) * 3 for seed in seeds]
    return torch.tensor(np.array(rows), dtype=torch.float32)


def rows_of(*seeds: int) -> np.ndarray:
    return dense_rows(torch.log_softmax(logits_of(*seeds), -1).double().numpy())


def taken(recorder: recording.Recorder, name: str) -> np.ndarray:
    return read_rows(recorder.take([name])[0])[:, : len(SUMS)]


def test_a_request_is_forgotten_once_taken(recorder):
    recorder.observe(logits_of(1), [(0, "a", 0)], has_forbidden=False)
    np.testing.assert_allclose(taken(recorder, "a"), rows_of(1), atol=1e-5)
    assert recorder.requests == []
    assert len(taken(recorder, "a")) == 0


def test_a_row_computed_again_replaces_its_first_version(recorder):
    """A prompt in chunks gives a row for token 0 at each chunk; only the last is the real one."""
    for seed in (1, 2, 3):
        recorder.observe(logits_of(seed), [(0, "a", 0)], has_forbidden=False)
    np.testing.assert_allclose(taken(recorder, "a"), rows_of(3), atol=1e-5)


def test_rows_with_a_hole_are_not_given_out(recorder):
    for index in (0, 2):
        recorder.observe(logits_of(1), [(0, "a", index)], has_forbidden=False)
    assert len(taken(recorder, "a")) == 0


def test_v1_follows_requests_through_the_batch(recorder):
    probe = probing.V1Probe(None, torch.device("cpu"), False)
    assert not probe.is_argmax_invariant()
    outputs = {name: [] for name in "abc"}
    added = [
        (0, params("a"), [1], outputs["a"]),
        (1, params(None), [1], []),
        (2, params("c"), [1], outputs["c"]),
    ]
    probe.update_state(BatchUpdate(3, removed=[], added=added, moved=[]))
    logits = logits_of(1, 2, 3)
    assert probe.apply(logits) is logits
    for name in "ac":
        outputs[name].append(7)
    # Request a leaves, c moves to its index, b enters behind it.
    probe.update_state(
        BatchUpdate(
            2,
            removed=[0],
            added=[],
            moved=[(2, 0, MoveDirectionality.UNIDIRECTIONAL)],
        )
    )
    probe.update_state(
        BatchUpdate(3, removed=[], added=[(2, params("b"), [1], outputs["b"])], moved=[])
    )
    probe.apply(logits_of(4, 5, 6))
    np.testing.assert_allclose(taken(recorder, "a"), rows_of(1), atol=1e-5)
    np.testing.assert_allclose(taken(recorder, "c"), rows_of(3, 4), atol=1e-5)
    np.testing.assert_allclose(taken(recorder, "b"), rows_of(6), atol=1e-5)
    assert recorder.requests == []


def test_some_tokens_of_one_distribution_are_kept_with_their_ranks(recorder):
    (logits,) = logits_of(1)
    ids = [5, int(logits.argmax()), 0]
    recorder.keep_tokens("a", logits, ids)
    kept = read_rows(recorder.take(["a"])[0])
    np.testing.assert_array_equal(column(kept, "token"), ids)
    np.testing.assert_allclose(column(kept, "logprob"), logits.log_softmax(-1)[ids], rtol=1e-6)
    order = logits.argsort(descending=True).tolist()
    assert column(kept, "rank").tolist() == [order.index(token) + 1 for token in ids]


def context(slots: list[int], lengths: list[int]) -> LogitsContext:
    return LogitsContext(
        expanded_idx_mapping=torch.tensor(slots),
        idx_mapping=torch.tensor(slots),
        idx_mapping_np=np.array(slots),
        expanded_local_pos=torch.zeros(len(slots)),
        input_ids=torch.zeros(len(slots)),
        pos=torch.tensor(lengths) - 1,
        seq_lens_upper_bound_np=np.array(lengths),
    )


def test_v2_names_rows_by_slot_and_skips_the_prompt(recorder):
    """Written against the installed interface; the V2 runner itself needs a GPU."""
    prompt_lengths = SimpleNamespace(np=np.array([0, 5, 0, 9]))
    probe = probing.V2Probe(None, SimpleNamespace(prompt_len=prompt_lengths))
    assert probe.add_request(1, params("a"))
    assert probe.add_request(3, params("b"))
    assert not probe.add_request(0, params(None))
    probe.apply(logits_of(1, 2, 3), context([3, 1, 0], [4, 5, 8]))  # b is within its prompt
    probe.apply(logits_of(4, 5), context([1, 3], [6, 9]))
    np.testing.assert_allclose(taken(recorder, "a"), rows_of(2, 4), atol=1e-5)
    np.testing.assert_allclose(taken(recorder, "b"), rows_of(5), atol=1e-5)


def test_v2_ends_a_sample_where_its_window_is_too_uncertain(recorder):
    prompt_lengths = SimpleNamespace(np=np.array([5]))
    probe = probing.V2Probe(None, SimpleNamespace(prompt_len=prompt_lengths))
    extra = {REQUEST_KEY: "early", STOP_KEY: ["entropy", 2, 1.0, 7]}
    probe.add_request(0, SamplingParams(extra_args=extra))
    flat, peaked = torch.zeros(1, SIZE), 20.0 * torch.eye(SIZE)[:1]
    forced = []
    for index, logits in enumerate([flat, peaked, peaked, flat, flat]):
        after = probe.apply(logits.clone(), context([0], [5 + index]))
        forced.append(not torch.equal(after, logits))
    # Entropies of log 31 = 3.4 and 0: the mean of the last two is above 1 but for the middle one.
    assert forced == [False, True, False, True, True]
    assert after.argmax() == 7 and torch.isinf(after).sum() == SIZE - 1
    rows = read_rows(probing.ProbeExtension().uq_take(["early"])[0])
    assert column(rows, "stopped").tolist() == [0, 1, 0, 1, 1]


def test_an_early_stop_that_lost_a_token_stops_nothing(recorder):
    stopper, rule = EarlyStopper(), {"a": ("entropy", 1, 0.0, 7)}
    logits = logits_of(1)
    table = recorder.observe(logits, [(0, "a", 3)], has_forbidden=False)
    stopper.apply(logits, table, [(0, "a", 3)], rule)
    assert torch.equal(logits, logits_of(1))


def test_the_engine_loads_each_class_by_its_name():
    from vllm.v1.sample.logits_processor import _load_logitsprocs_by_fqcns
    from vllm.v1.worker.gpu.sample.logits_processor.loader import _load_v2_logitsprocs_by_fqcns

    v1, v2 = (probe_name(use_v2_model_runner=v2) for v2 in (False, True))
    assert _load_logitsprocs_by_fqcns([v1]) == [probing.V1Probe]
    assert _load_v2_logitsprocs_by_fqcns([v2]) == [probing.V2Probe]
