"""lm-polygraph's estimators: how they are imported, what they read, and methods made of them.

`import lm_polygraph` brings torch, transformers, spaCy, datasets and more, and takes from ten
seconds to a minute, so it happens only once a method that needs an estimator is really used.
"""

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from types import ModuleType, SimpleNamespace
from typing import Protocol, TypeVar, Unpack, cast

import numpy as np

from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.backends.event_loop import together
from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds
from uq_llm_integrations.errors import (
    ConfigurationError,
    EvidenceError,
    MethodUnavailableError,
    MissingDependencyError,
    reason,
)
from uq_llm_integrations.methods.base import Level, Method, MethodFields, Requirement, Value
from uq_llm_integrations.methods.context import Context, Evidence
from uq_llm_integrations.methods.degenerate import why_undefined
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.records import Candidate, Claim, Floats

T = TypeVar("T")
Entries = TypeVar("Entries", bound=Evidence[Sequence[object]])

SLOW_IMPORT = 2.0
"""Seconds from which on an import of lm-polygraph is worth a line in the log."""

_log = logging.getLogger(__name__)
_importing = Lock()


class Estimator(Protocol):
    """An lm-polygraph estimator: from named statistics of a batch to one entry for each member."""

    stats_dependencies: Sequence[str]
    level: Level

    def __call__(self, stats: Mapping[str, object], /) -> Sequence[object]:
        """Return the scores of the batch that `stats` describes."""


STATISTICS: dict[str, Evidence[Sequence[object]]] = {}
"""lm-polygraph's name of a statistic -> evidence that returns it for each candidate."""

REQUIREMENTS: dict[str, tuple[Requirement, ...]] = {}
"""What a statistic needs of the backend and the options, where it needs something."""


def statistic(
    *names: str, requirements: tuple[Requirement, ...] = ()
) -> Callable[[Entries], Entries]:
    """Enter evidence, one entry for each candidate, under lm-polygraph's names of it.

    Example:
        @statistic("input_texts")
        async def prompts(context: Context) -> list[str]:
            return [await context.question()] * len(context.candidates)
    """

    def enter(evidence: Entries) -> Entries:
        STATISTICS.update(dict.fromkeys(names, evidence))
        REQUIREMENTS.update(dict.fromkeys(names, requirements))
        return evidence

    return enter


def shared_statistic(name: str, evidence: Evidence[T], pick: Callable[[T], object]) -> None:
    """Enter a part of evidence that belongs to the prompt, the same for each candidate."""

    @statistic(name)
    async def shared(context: Context) -> list[object]:
        return [pick(await context.of(evidence))] * len(context.candidates)


@statistic("greedy_tokens")
async def _token_ids(context: Context) -> list[list[int]]:
    return [list(one.token_ids) for one in context.candidates]


@statistic("greedy_texts")
async def _texts(context: Context) -> list[str]:
    return [one.text for one in context.candidates]


@statistic("greedy_log_likelihoods")
async def _logprobs(context: Context) -> list[Floats]:
    return [one.trace.logprob for one in context.candidates]


@statistic("greedy_log_probs")
async def _distributions(context: Context) -> list[Floats]:
    whole = []
    for trace in (one.trace for one in context.candidates):
        if trace.top_logprobs is None or trace.top_logprobs.shape[1] < trace.vocabulary_size:
            raise EvidenceError("the whole vocabulary was not requested: top_logprobs=-1")
        whole.append(trace.top_logprobs)
    return whole


@statistic("input_texts")
async def _prompts(context: Context) -> list[str]:
    return [await context.question()] * len(context.candidates)


@cache
def estimators() -> ModuleType:
    """Return `lm_polygraph.estimators`, imported the ordinary way; a slow import is logged once.

    Blocking: call it on a thread (`asyncio.to_thread`) from async code. Raises
    MissingDependencyError where lm-polygraph is not installed.
    """
    with _importing:
        started = time.perf_counter()
        hide_mismatched_builds(from_vllm=True)
        try:
            module = import_module("lm_polygraph.estimators")
        except ImportError as error:
            if not has_polygraph():
                raise MissingDependencyError("lm-polygraph", "polygraph") from error
            raise ConfigurationError(f"lm-polygraph cannot be imported: {reason(error)}") from error
        if (seconds := time.perf_counter() - started) > SLOW_IMPORT:
            _log.warning("the import of lm-polygraph took %.1f seconds", seconds)
        return module


def has_polygraph() -> bool:
    """Return whether lm-polygraph is installed, without importing it."""
    try:
        return find_spec("lm_polygraph") is not None
    except ImportError:
        return False


def needs_polygraph(capabilities: Capabilities, options: MethodOptions) -> str | None:
    """Require lm-polygraph."""
    if has_polygraph():
        return None
    return f"more than is installed: {MissingDependencyError('lm-polygraph', 'polygraph')}"


def polygraph_method(
    name: str,
    class_name: str,
    statistics: str = "",
    options: Mapping[str, object] | None = None,
    **fields: Unpack[MethodFields],
) -> Method:
    """Make a method of an lm-polygraph estimator.

    `statistics` has the names of what it reads, between spaces, beside the tokens, the text and
    the log-probabilities; `name=other` is another statistic in the place of the one it names.
    `options` are the estimator's arguments.
    """
    names = [one.partition("=")[0] for one in statistics.split()]
    read = [one.rpartition("=")[2] for one in statistics.split()]
    level = fields.get("level", "sequence")

    async def gather(context: Context) -> list[Value]:
        _, *columns = await together(
            [context.of(_imported), *(context.of(STATISTICS[one]) for one in read)]
        )
        rows = zip(*columns, strict=True) if columns else ((),) * len(context.candidates)
        given = [dict(zip(names, row, strict=True)) for row in rows]
        return await asyncio.to_thread(values, context.candidates, given)

    def values(
        candidates: Sequence[Candidate], given: Sequence[Mapping[str, object]]
    ) -> list[Value]:
        pairs = zip(candidates, given, strict=True)
        return [_value(class_name, options or {}, level, *pair) for pair in pairs]

    needed = (needs_polygraph, *(one for key in read for one in REQUIREMENTS.get(key, ())))
    fields["requirements"] = tuple(dict.fromkeys([*needed, *fields.get("requirements", ())]))
    return Method(name, gather=gather, **fields)


async def _imported(context: Context) -> Sequence[object]:
    await asyncio.to_thread(estimators)
    return ()


def _value(
    class_name: str,
    options: Mapping[str, object],
    level: Level,
    candidate: Candidate,
    given: Mapping[str, object],
) -> Value:
    """Return the estimator's value of a batch of one, in float64, or what it failed with."""
    try:
        # A new one for each batch: some keep what they saw of their first.
        estimator: Estimator = getattr(estimators(), class_name)(**options)
        with np.errstate(all="ignore"):  # what is not finite becomes a reason
            value = _read(estimator(batch_statistics(candidate, given)), level)
    except Exception as error:  # theirs, and so anything
        why = why_undefined(given)
        return EvidenceError(why or f"lm-polygraph fails: {type(error).__name__}: {error}")
    if not np.isfinite(value).all() and (why := why_undefined(given)):
        return EvidenceError(why)
    return value


def _read(found: Sequence[object], level: Level) -> float | Floats:
    """Return the value of a batch of one."""
    if level == "token":
        return np.ravel(np.asarray(found, np.float64))
    values = np.asarray(found[0], np.float64)
    return values if level == "claim" else float(np.mean(values))


def batch_statistics(candidate: Candidate, given: Mapping[str, object]) -> dict[str, object]:
    """Return a candidate and what was gathered of it as lm-polygraph's statistics, a batch of one.

    `p_true_claim` lies outside of the batch, as in lm-polygraph.
    """
    stats: dict[str, object] = {
        "greedy_log_likelihoods": [candidate.trace.logprob],
        "greedy_tokens": [list(candidate.token_ids)],
        "greedy_texts": [candidate.text],
    }
    for name, value in given.items():
        stats[name] = value[np.newaxis] if isinstance(value, np.ndarray) else [value]
    if (classes := given.get("semantic_classes_entail")) is not None:
        stats["semantic_classes_entail"] = _classes(cast("list[list[int]]", classes))
    if (claims := given.get("claims")) is not None:
        stats["claims"] = [[_polygraph_claim(claim) for claim in cast("list[Claim]", claims)]]
        stats["p_true_claim"] = given.get("p_true_claim")
    return stats


def _classes(classes: list[list[int]]) -> dict[str, object]:
    members = {sample: index for index, one in enumerate(classes) for sample in one}
    return {"class_to_sample": {0: classes}, "sample_to_class": {0: members}}


def _polygraph_claim(claim: Claim) -> object:
    indices = list(claim.tokens)
    return SimpleNamespace(claim_text=claim.text, sentence=claim.text, aligned_token_ids=indices)


def unlisted_method(name: str) -> Method | None:
    """Return the method of any estimator class of the installed lm-polygraph; None for no class.

    Its level is the estimator's, and its value is what the estimator gives, of which lm-polygraph
    promises that higher is more uncertain. Only a name that begins like a class's causes the
    import. Raises MethodUnavailableError where the class cannot be made without arguments, or
    reads what cannot be gathered.
    """
    if not name[:1].isupper() or not has_polygraph():
        return None
    module = estimators()
    kind = getattr(module, name, None)
    if not isinstance(kind, type) or not issubclass(kind, module.Estimator):
        return None
    estimator = _made(name, kind)
    needs = list(estimator.stats_dependencies)
    if lacking := [need for need in needs if need not in STATISTICS]:
        raise MethodUnavailableError(
            f"lm-polygraph's {name} reads {', '.join(lacking)}, which cannot be gathered here"
        )
    if estimator.level == "claim" and "claims" not in needs:
        needs.append("claims")  # TokenSARClaim forgets to declare them
    return polygraph_method(
        name,
        name,
        " ".join(needs),
        level=estimator.level,
        summary="The value that lm-polygraph's estimator of this name gives.",
        reference="https://github.com/IINemo/lm-polygraph",
        cost=f"what its statistics cost: {', '.join(needs) or 'none'}",
    )


def _made(name: str, kind: Callable[[], Estimator]) -> Estimator:
    parameters = inspect.signature(kind).parameters.values()
    required = [
        one.name
        for one in parameters
        if one.default is one.empty and one.kind not in {one.VAR_POSITIONAL, one.VAR_KEYWORD}
    ]
    if required:
        raise MethodUnavailableError(
            f"lm-polygraph's {name} has arguments without defaults, which a name cannot give: "
            f"{', '.join(required)}"
        )
    try:
        return kind()
    except Exception as error:  # theirs, and so anything
        raise MethodUnavailableError(
            f"lm-polygraph's {name} cannot be made: {type(error).__name__}: {error}"
        ) from error
