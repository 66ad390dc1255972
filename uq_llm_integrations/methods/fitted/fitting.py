"""Fits densities and heads on examples that a backend answers and shows the hidden states of."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import numpy as np

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.row_checks import sound_candidate
from uq_llm_integrations.errors import ConfigurationError, MethodUnavailableError
from uq_llm_integrations.methods.fitted.density import DensityFit
from uq_llm_integrations.methods.fitted.embeddings import mean_embedding
from uq_llm_integrations.methods.fitted.head import UncertaintyHead
from uq_llm_integrations.records import Candidate, Floats, Inspection, Layer, Request, Singles

Example = str | Candidate
"""A prompt, which the model answers greedily, or a candidate that it gave before."""

BATCH = 32


def fit_density(
    backend: Backend,
    examples: Iterable[Example],
    *,
    layer: Layer = -1,
    background: Iterable[Example] = (),
    robust: bool = True,
    chat: bool = False,
    **sampling: object,
) -> DensityFit:
    """Fit Mahalanobis distance, its kin and RDE on the mean hidden states of examples.

    `background` has texts of any kind, for the relative form. RDE takes most of the time; leave it
    out with `robust=False`. Prompts are answered greedily, with vLLM's sampling parameters where
    some are given, so that answers are compared with answers. Raises MethodUnavailableError for a
    backend that shows no hidden states, ConfigurationError for examples that make no fit.

    Example:
        density = fit_density(backend, questions, background=other_texts, chat=True)
        options = MethodOptions(density=density)
    """
    fitting = afit_density(
        backend,
        examples,
        layer=layer,
        background=background,
        robust=robust,
        chat=chat,
        **sampling,
    )
    return backend.run(fitting)


async def afit_density(
    backend: Backend,
    examples: Iterable[Example],
    *,
    layer: Layer = -1,
    background: Iterable[Example] = (),
    robust: bool = True,
    chat: bool = False,
    **sampling: object,
) -> DensityFit:
    """Fit as `fit_density` does."""
    own, mean_nlls = await _read(backend, examples, layer, chat, sampling)
    other, _ = await _read(backend, background, layer, chat, sampling)
    return await asyncio.to_thread(
        DensityFit.fit,
        own,
        other if len(other) else None,
        model=backend.capabilities.model,
        layer=layer,
        mean_nlls=mean_nlls,
        robust=robust,
    )


def fit_head(
    backend: Backend,
    examples: Iterable[Example],
    is_wrong: Sequence[bool],
    *,
    layer: Layer = -1,
    chat: bool = False,
    **sampling: object,
) -> UncertaintyHead:
    """Fit a head that separates wrong answers from right ones by their mean hidden states.

    `is_wrong` has one label for each example. Errors as for `fit_density`.

    Example:
        head = fit_head(backend, questions, is_wrong, layer=15, chat=True)
        options = MethodOptions(head=head)
    """
    return backend.run(afit_head(backend, examples, is_wrong, layer=layer, chat=chat, **sampling))


async def afit_head(
    backend: Backend,
    examples: Iterable[Example],
    is_wrong: Sequence[bool],
    *,
    layer: Layer = -1,
    chat: bool = False,
    **sampling: object,
) -> UncertaintyHead:
    """Fit as `fit_head` does."""
    embeddings, _ = await _read(backend, examples, layer, chat, sampling)
    if len(embeddings) != len(is_wrong):
        raise ConfigurationError(
            f"there are {len(embeddings)} examples and {len(is_wrong)} labels; each needs one"
        )
    return await asyncio.to_thread(
        UncertaintyHead.fit,
        embeddings,
        np.asarray(is_wrong, bool),
        model=backend.capabilities.model,
        layer=layer,
    )


async def _read(
    backend: Backend,
    examples: Iterable[Example],
    layer: Layer,
    chat: bool,
    sampling: Mapping[str, object],
) -> tuple[Singles, Floats]:
    """Return [N, D] mean hidden states and [N] mean negative log-probabilities of the answers."""
    if (why_not := backend.capabilities.why_no_activations) is not None:
        raise MethodUnavailableError(f"hidden states cannot be had: {why_not}")
    rows, mean_nlls = [np.empty((0, 0), np.float32)], list[float]()
    examples = iter(examples)
    while batch := list(islice(examples, BATCH)):
        candidates = await _answered(backend, batch, chat, sampling)
        texts = [one.prompt_ids + one.token_ids for one in candidates]
        seen = await backend.inspect_all(texts, Inspection((layer,)))
        rows.append(np.stack([mean_embedding(one.hidden[layer]) for one in seen]))
        mean_nlls += [_mean_nll(one) for one in candidates]
    return np.concatenate(rows[1:] or rows), np.array(mean_nlls)


def _mean_nll(candidate: Candidate) -> float:
    logprob = candidate.trace.logprob
    return -float(logprob.mean()) if len(logprob) else np.nan


async def _answered(
    backend: Backend, examples: Sequence[Example], chat: bool, sampling: Mapping[str, object]
) -> list[Candidate]:
    async def answered(example: Example) -> Candidate:
        if isinstance(example, Candidate):
            return example
        ids = await backend.encode(example, chat=chat)
        request = Request(ids, sampling={"temperature": 0.0, "max_tokens": 64, **sampling})
        return sound_candidate((await backend.generate(request))[0])

    return list(await asyncio.gather(*map(answered, examples)))
