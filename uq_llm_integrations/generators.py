"""Two faces of `UncertaintyModel`: step by step, and samples with their uncertainty."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypedDict

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.hybrid import Mode, hybrid_backend
from uq_llm_integrations.config import Configuration, configured
from uq_llm_integrations.errors import ConfigurationError, InvalidRequestError, described
from uq_llm_integrations.methods.registry import DEFAULT_METHODS
from uq_llm_integrations.model import UncertaintyModel
from uq_llm_integrations.records import Candidate, Request, Result
from uq_llm_integrations.report.metadata import Metadata
from uq_llm_integrations.settings import combined
from uq_llm_integrations.strategies.base import Run, Strategy
from uq_llm_integrations.strategies.condition_text import as_condition
from uq_llm_integrations.strategies.conditions import Condition
from uq_llm_integrations.strategies.step_state import Step, StepState
from uq_llm_integrations.strategies.stepwise import Stepwise
from uq_llm_integrations.strategies.streaming import stopped_state
from uq_llm_integrations.truncation import TruncatedScore

_DEFAULTS = {"temperature": 0.7, "max_tokens": 256}
_SAMPLES, _MOST_REMEMBERED = 4, 64


class Sample(TypedDict):
    """A text and the metadata of its uncertainty."""

    text: str
    uncertainty: Metadata


class VLLMStepGenerator:
    r"""Generates step by step: all at once, as a stream of steps, or on from a saved state.

    `strategy` is the `Stepwise` by which steps are sampled and chosen, `chat` puts prompts into the
    chat template, and all other arguments are those of `UncertaintyModel`. What was generated is
    remembered, so that its beginnings are scored without a forward pass.

    Example:
        >>> from uq_llm_integrations import ScriptedBackend, VLLMStepGenerator
        >>> backend = ScriptedBackend({"Count": ["One.\n"], "CountOne.\n": ["Two."]})
        >>> generator = VLLMStepGenerator(backend)
        >>> [step.text for step in generator.stream("Count")]
        ['One.\n', 'Two.']
    """

    def __init__(
        self,
        backend: Backend,
        strategy: Stepwise | None = None,
        methods: Sequence[str] = DEFAULT_METHODS,
        *,
        chat: bool = False,
        **options: Any,
    ) -> None:
        options = combined({**_DEFAULTS, "chat_template": chat}, options)
        chosen = Stepwise() if strategy is None else strategy
        self.model = UncertaintyModel(backend, strategy=chosen, methods=methods, **options)
        _stepwise_of(self.model)
        self._generated: list[Candidate] = []

    @classmethod
    def from_config(cls, source: str | Path | Mapping[str, Any]) -> Self:
        """Return the generator that a YAML file or a dict describes; its strategy is stepwise."""
        configuration = Configuration.read(source)
        with configured(source):
            given = {"strategy": configuration.strategy, **configuration.given}
            return cls(configuration.generator.backend(), **given)

    def generate(self, prompt: str, **options: object) -> Result:
        """Return the whole answer. All calls take the options of the class, too."""
        return self.model.backend.run(self.agenerate(prompt, **options))

    async def agenerate(self, prompt: str, **options: object) -> Result:
        """Return what `generate` does."""
        model = self.model.with_options(**options)
        return await self._finished(model, await _started(model, prompt), prompt)

    def stream(self, prompt: str, **options: object) -> Iterator[Step]:
        """Yield the steps as they are kept, and raise or abstain as the policy says in the end.

        Where it may abstain, nothing is shown before the last step, since it could not be taken
        back; an abstention is one step.
        """
        return self.model.backend.iterate(self.astream(prompt, **options))

    async def astream(self, prompt: str, **options: object) -> AsyncIterator[Step]:
        """Yield what `stream` does."""
        model = self.model.with_options(**options)
        policy, state = model.settings.policy, await _started(model, prompt)
        is_held, seen = policy.on_high_uncertainty == "abstain", 0
        async for state in self.astates(state, **options):  # noqa: B020  # the last one is needed
            for step in () if is_held else state.steps[seen:]:
                yield step
            seen = len(state.steps)
        if policy.condition is None:
            return
        result = await self._finished(model, state, prompt)
        if is_held:
            for step in _abstained(result, state) or state.steps:
                yield step

    async def astart(self, prompt: str) -> StepState:
        """Return the state before the first step."""
        return await _started(self.model, prompt)

    async def astates(self, state: StepState, **options: object) -> AsyncIterator[StepState]:
        """Go on from a state, which may have been saved, and yield the state after each step.

        Where `stop_if` holds of the steps so far, they end as 'early_stop'.
        """
        _check_state(state)
        model = self.model.with_options(**options)
        stepwise, run = _stepwise_of(model), model.run_of(model.request(state.prompt_ids))
        stop_if = _stop_condition(model)
        while not state.is_finished:
            state = stopped_state(await stepwise.advance(run, state), stop_if, run.request)
            self._remember(state.candidate())
            yield state

    def resume(self, state: StepState, **options: object) -> Result:
        """Go on from a saved state to the end."""
        return self.model.backend.run(self.aresume(state, **options))

    async def aresume(self, state: StepState, **options: object) -> Result:
        """Return what `resume` does."""
        _check_state(state)
        return await self._finished(self.model.with_options(**options), state)

    def result(self, state: StepState, **options: object) -> Result:
        """Return the steps of a state as one scored result, decided about."""
        return self.model.backend.run(self.aresult(state, **options))

    async def aresult(self, state: StepState, **options: object) -> Result:
        """Return what `result` does."""
        _check_state(state)
        model = self.model.with_options(**options)
        policy = model.settings.policy
        run = model.run_of(model.request(state.prompt_ids)).vary(methods=policy.methods)
        return policy.decide(await run.assess(_stepwise_of(model).result(run, state)))

    def score_truncated_sequence(
        self, prompt: str, truncated_text: str, *, heal: bool = False, **options: object
    ) -> TruncatedScore:
        """Return the scores of a text behind a prompt.

        Where it is the beginning of what this object has generated, no forward pass is made, but
        for what a cut within a token leaves over, with `heal`.
        """
        return self.score_truncated_sequences(prompt, [truncated_text], heal=heal, **options)[0]

    def score_truncated_sequences(
        self, prompt: str, texts: Sequence[str], *, heal: bool = False, **options: object
    ) -> list[TruncatedScore]:
        """Return the scores of several texts behind one prompt, from one batch."""
        return self.model.score_truncated(prompt, texts, self._generated, heal=heal, **options)

    async def ascore_truncated_sequences(
        self, prompt: str, texts: Sequence[str], *, heal: bool = False, **options: object
    ) -> list[TruncatedScore]:
        """Return what `score_truncated_sequences` does."""
        scoring = self.model.ascore_truncated(prompt, texts, self._generated, heal=heal, **options)
        return await scoring

    async def _finished(
        self, model: UncertaintyModel, state: StepState, prompt: str | None = None
    ) -> Result:
        request = model.request(state.prompt_ids, prompt)
        resumed = _Resumed(_stepwise_of(model), state, _stop_condition(model))
        result = await model.answer(request, resumed)
        self._remember(result.candidate)
        return result

    def _remember(self, candidate: Candidate) -> None:
        kept = [one for one in self._generated if not _begins(one, candidate)]
        self._generated = [*kept, candidate][-_MOST_REMEMBERED:]


def _check_state(state: object) -> None:
    """Raise InvalidRequestError for what is no state to go on from."""
    if not isinstance(state, StepState):
        raise InvalidRequestError(f"the state is {described(state)}; it must be a StepState")


async def _started(model: UncertaintyModel, prompt: str) -> StepState:
    return StepState(await model.encode_prompt(prompt))


def _stepwise_of(model: UncertaintyModel) -> Stepwise:
    strategy = model.settings.strategy
    if not isinstance(strategy, Stepwise):
        raise ConfigurationError(f"strategy.type is {described(strategy.type)}, not 'stepwise'")
    return strategy


def _stop_condition(model: UncertaintyModel) -> Condition | None:
    stop_if = model.settings.stop_if
    return None if stop_if is None else as_condition(stop_if)


def _abstained(result: Result, state: StepState) -> tuple[Step, ...]:
    """Return an abstention as one step, nothing where the answer is accepted."""
    text = result.decision.text
    if text is None:
        return ()
    return tuple(replace(one, text=text, token_ids=state.token_ids) for one in state.steps[-1:])


@dataclass(frozen=True)
class _Resumed(Strategy):
    """Goes on from a state, until a step is the last or the condition holds of the steps."""

    takes_steps = True

    stepwise: Stepwise
    state: StepState
    stop_if: Condition | None

    async def __call__(self, run: Run) -> Result:
        state = self.state
        while not state.is_finished:
            state = stopped_state(await self.stepwise.step(run, state), self.stop_if, run.request)
        return await self.stepwise.finish(run, state)

    def samples(self, request: Request) -> int:
        return self.stepwise.samples(request)


def _begins(one: Candidate, other: Candidate) -> bool:
    ids = one.token_ids
    return one.prompt_ids == other.prompt_ids and other.token_ids[: len(ids)] == ids


class HybridUncertaintyGenerator:
    """Generates on vLLM and scores by any method, also those that look inside the model.

    `mode` is that of `hybrid_backend`; a ready `backend` may be given in place of a model. `chat`
    puts prompts into the chat template; all other arguments are those of `UncertaintyModel`.

    Example:
        >>> from uq_llm_integrations import HybridUncertaintyGenerator, ScriptedBackend
        >>> generator = HybridUncertaintyGenerator(backend=ScriptedBackend(["Paris"]))
        >>> generator.generate_with_uncertainty("Capital of France?", n_samples=1)[0]["text"]
        'Paris'
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        backend: Backend | None = None,
        mode: Mode = "shared",
        vllm: Mapping[str, Any] | None = None,
        huggingface: Mapping[str, Any] | None = None,
        chat: bool = False,
        **options: object,
    ) -> None:
        if (model is None) == (backend is None):
            raise ConfigurationError("give either a `model` or a `backend`")
        if backend is None:
            assert model is not None
            backend = hybrid_backend(model, mode, vllm, huggingface)
        defaults = {**_DEFAULTS, "n": _SAMPLES, "chat_template": chat}
        self.model = UncertaintyModel(backend, **combined(defaults, options))

    @classmethod
    def from_config(cls, source: str | Path | Mapping[str, Any]) -> Self:
        """Return the generator that a YAML file or a dict describes."""
        configuration = Configuration.read(source)
        with configured(source):
            return cls(backend=configuration.generator.backend(), **configuration.given)

    def generate_with_uncertainty(
        self,
        prompt: str,
        n_samples: int | None = None,
        uncertainty_methods: Sequence[str] | None = None,
        **options: object,
    ) -> list[Sample]:
        """Return the samples, the chosen one first, with the metadata of their uncertainty.

        Without `n_samples` and `uncertainty_methods`, those that were configured.
        """
        running = self.agenerate_with_uncertainty(prompt, n_samples, uncertainty_methods, **options)
        return self.model.backend.run(running)

    async def agenerate_with_uncertainty(
        self,
        prompt: str,
        n_samples: int | None = None,
        uncertainty_methods: Sequence[str] | None = None,
        **options: object,
    ) -> list[Sample]:
        """Return what `generate_with_uncertainty` does."""
        given = {"n": n_samples, "methods": uncertainty_methods}
        options = {name: one for name, one in given.items() if one is not None} | options
        model = self.model.with_options(**options)
        result = await model.agenerate(prompt)
        texts = [result.text, *(one.text for one in result.candidates[1:])]
        rows = await model.ametadata(result)
        return [{"text": one, "uncertainty": row} for one, row in zip(texts, rows, strict=True)]
