"""Asking a model all questions of a set, and writing what comes of each as it is finished."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from uq_llm_integrations.backends.event_loop import together
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.backends.token_texts import candidate_texts
from uq_llm_integrations.errors import (
    ConfigurationError,
    EngineClosedError,
    EngineLostError,
    EngineStartError,
    HighUncertaintyError,
    described,
    reason,
)
from uq_llm_integrations.evaluation.correctness import (
    Grader,
    GraderName,
    as_grader,
    graded,
    grader_name,
)
from uq_llm_integrations.evaluation.items import Evaluation, Item, ItemFile, Setup, hash_of
from uq_llm_integrations.evaluation.questions import Question, check_ids
from uq_llm_integrations.methods.registry import find_method
from uq_llm_integrations.methods.scoring import add_evidence_scores
from uq_llm_integrations.model import UncertaintyModel
from uq_llm_integrations.optional_packages import optional_module
from uq_llm_integrations.records import Result, Usage
from uq_llm_integrations.report.metadata import uncertainty_metadata
from uq_llm_integrations.report.token_values import of_candidate
from uq_llm_integrations.strategies.base import check_count

FATAL = (ConfigurationError, EngineStartError, EngineLostError, EngineClosedError)
"""Errors after which no other question can be answered."""

OnItem = Callable[[Item], None]


def evaluate(
    model: UncertaintyModel,
    questions: Sequence[Question],
    path: str | Path,
    *,
    grader: Grader | GraderName = "contains",
    methods: Sequence[str] | None = None,
    template: str = "{question}",
    concurrency: int = 8,
    cost_items: int = 3,
    keep_tokens: bool = True,
    progress: bool = False,
) -> Evaluation:
    """Ask a model each question, grade its answers, and write an item for each to a JSONL file.

    `methods` are those of the model unless given; each must give one score an answer. `template` is
    the prompt, with {question} and, where it is wanted, {sources}. So many questions as
    `concurrency` says are asked at the same time. The first `cost_items` come before, one after the
    other, and each method is also computed alone for them, which says what it costs. `keep_tokens`
    keeps the tokens of the answers for heat maps; `progress` shows a bar.

    Where the file is there already, it goes on where it stopped. A question that fails is an item
    with its error; those that may succeed another time (`is_retryable`) are asked again. Raises
    ConfigurationError where the file is of another evaluation, and what leaves no hope for the
    other questions, as where the engine cannot be started.

    Example:
        >>> import tempfile
        >>> model = UncertaintyModel(ScriptedBackend(["Paris"]), methods=["entropy"])
        >>> path = Path(tempfile.mkdtemp(), "evaluation.jsonl")
        >>> evaluate(model, [Question("Capital of France?", ("Paris",), "1")], path).correct
        [True]
    """
    return model.backend.run(
        aevaluate(
            model,
            questions,
            path,
            grader=grader,
            methods=methods,
            template=template,
            concurrency=concurrency,
            cost_items=cost_items,
            keep_tokens=keep_tokens,
            progress=progress,
        )
    )


async def aevaluate(
    model: UncertaintyModel,
    questions: Sequence[Question],
    path: str | Path,
    *,
    grader: Grader | GraderName = "contains",
    methods: Sequence[str] | None = None,
    template: str = "{question}",
    concurrency: int = 8,
    cost_items: int = 3,
    keep_tokens: bool = True,
    progress: bool = False,
) -> Evaluation:
    """Do what `evaluate` does."""
    _check(questions, template, concurrency, cost_items)
    scored, names = _with_methods(model, methods)
    asking = _Asking(scored, names, as_grader(grader), template, keep_tokens)
    file = ItemFile(path, await asking.setup(questions))
    try:
        left = [one for one in range(len(questions)) if one not in file.done]
        with _bar(len(questions), len(questions) - len(left), shown=progress) as advance:

            async def ask(numbers: Iterator[int], *, with_costs: bool = False) -> None:
                for number in numbers:
                    item = await asking.item(number, questions[number], with_costs=with_costs)
                    file.add(item)
                    advance(item)

            await ask((one for one in left if one < cost_items), with_costs=True)
            numbers = (one for one in left if one >= cost_items)
            await together([ask(numbers) for _ in range(concurrency)])
        return file.evaluation()
    finally:
        file.close()


@dataclass(frozen=True, eq=False)
class _Asking:
    """A model, and what is done with each of its answers."""

    model: UncertaintyModel
    methods: tuple[str, ...]
    grader: Grader
    template: str
    keep_tokens: bool

    async def setup(self, questions: Sequence[Question]) -> Setup:
        """Return what is evaluated."""
        return Setup(
            await self.model.aorigin(),
            self.methods,
            grader_name(self.grader),
            self.template,
            len(questions),
            hash_of(questions),
        )

    async def item(self, number: int, question: Question, *, with_costs: bool) -> Item:
        """Ask a question; an error is a part of the item, unless nothing more can be asked."""
        try:
            return await self._answered(Item(number, question), with_costs=with_costs)
        except FATAL:
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {reason(error)}"
            can_retry = bool(getattr(error, "is_retryable", False))
            return Item(number, question, error=why, is_retryable=can_retry)

    async def _answered(self, item: Item, *, with_costs: bool) -> Item:
        prompt = _filled(self.template, item.question)
        result = await self._result(prompt)
        candidate, metadata = result.candidate, uncertainty_metadata(result)
        if candidate.error:
            raise candidate.error
        texts = await candidate_texts(self.model.backend, candidate) if self.keep_tokens else None
        return replace(
            item,
            text=candidate.text,
            grade=await graded(self.grader, candidate.text, item.question),
            scores={name: metadata["scores"].get(name) for name in self.methods},
            reasons=metadata.get("reasons", {}),
            confidence=result.confidence,
            decision=result.decision.action,
            is_uncertain=result.decision.is_uncertain,
            usage=result.usage,
            costs=await self._costs(result, prompt) if with_costs else None,
            tokens=None if texts is None else of_candidate(candidate, texts),
        )

    async def _result(self, prompt: str) -> Result:
        """Return the result, also where the model's policy raises it."""
        try:
            return await self.model.agenerate(prompt)
        except HighUncertaintyError as error:
            if error.result is None:
                raise
            return error.result

    async def _costs(self, result: Result, prompt: str) -> dict[str, Usage]:
        """Return what each method's score costs where no other method shares its evidence."""
        return {name: await self._cost(name, result, prompt) for name in self.methods}

    async def _cost(self, method: str, result: Result, prompt: str) -> Usage:
        if find_method(method).gather is None:
            return Usage()
        model = self.model
        request = model.request(await model.encode_prompt(prompt), prompt)
        bare = Result(result.candidates[:1], ({},), Usage())
        metered = MeteredBackend(model.backend, is_data=request.is_data)
        scored = await add_evidence_scores(bare, metered, request, [method], model.method_options)
        return scored.usage


def _check(questions: Sequence[Question], template: str, concurrency: int, cost_items: int) -> None:
    if not isinstance(questions, Sequence) or not all(
        isinstance(one, Question) for one in questions
    ):
        raise ConfigurationError(f"questions is {described(questions)}; wanted is a list of them")
    check_ids(questions)
    if not isinstance(template, str) or "{question}" not in template:
        raise ConfigurationError(f"template is {described(template)}; it must have {{question}}")
    check_count("concurrency", concurrency)
    check_count("cost_items", cost_items, 0)


def _with_methods(
    model: UncertaintyModel, methods: Sequence[str] | None
) -> tuple[UncertaintyModel, tuple[str, ...]]:
    """Return the model with the methods, and the names of those that score an answer as a whole."""
    model = model if methods is None else model.with_options(methods=methods)
    whole = tuple(one for one in model.methods if find_method(one).level == "sequence")
    if methods is not None and not isinstance(methods, str):
        for name in methods:
            if find_method(name).level != "sequence":
                level = find_method(name).level
                raise ConfigurationError(f"{name} scores each {level}, not an answer as a whole")
    if not whole:
        raise ConfigurationError("no method scores an answer as a whole; name some as methods")
    return model, whole


def _filled(template: str, question: Question) -> str:
    """Return the prompt; in one pass, so that a question with {sources} in it stays as it is."""
    values = {"question": question.question, "sources": "\n\n".join(question.sources)}
    return re.sub(r"\{(question|sources)\}", lambda name: values[name[1]], template)


@contextmanager
def _bar(total: int, done: int, *, shown: bool) -> Iterator[OnItem]:
    """Show on stderr how far it is, and how many questions have failed."""
    if not shown:
        yield lambda _: None
        return
    console = optional_module("rich.console", "evaluation").Console(stderr=True)
    failed = 0
    with optional_module("rich.progress", "evaluation").Progress(console=console) as progress:
        task = progress.add_task("Asking", total=total, completed=done)

        def advance(item: Item) -> None:
            nonlocal failed
            failed += item.error is not None
            progress.update(task, advance=1, description=f"Asking, {failed} failed")

        yield advance
