"""Whether texts mean the same: entailment and similarity, by a judge that can be replaced."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from uq_llm_integrations.backends.event_loop import together
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.backends.row_checks import check_scored
from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds
from uq_llm_integrations.checkpoints import existing_folder
from uq_llm_integrations.errors import (
    ConfigurationError,
    MissingDependencyError,
    ModelNotFoundError,
    described,
    reason,
)
from uq_llm_integrations.records import Floats, Inspection, Singles

Pairs = Sequence[tuple[str, str]]


class Entailment(Protocol):
    """Judges whether the second text of a pair follows from the first.

    Example:
        class Equal:
            name = "equality"

            async def entailments(self, pairs, question, backend):
                return np.array([[1.0, 0, 0] if a == b else [0, 1.0, 0] for a, b in pairs])

        MethodOptions(entailment=Equal())
    """

    @property
    def name(self) -> str:
        """What it is, for the score that rests on it."""

    async def entailments(self, pairs: Pairs, question: str, backend: MeteredBackend) -> Floats:
        """Return [pairs, 3] probabilities: it follows, neither, it is contradicted.

        `question` is the prompt that the texts answer, and `backend` serves the model that wrote
        them.
        """


class Similarity(Protocol):
    """Judges how alike the two texts of a pair are."""

    @property
    def name(self) -> str:
        """What it is, for the score that rests on it."""

    async def similarities(self, pairs: Pairs, question: str, backend: MeteredBackend) -> Floats:
        """Return [pairs] similarities from 0 to 1."""


@dataclass(frozen=True)
class ServedJudge:
    """The served model itself as judge, by the probabilities of the answers it may give.

    The answers are single words; what the model gives to each is taken relative to all of them, so
    nothing is generated. The larger the model, the better the judge.

    Example:
        >>> options = MethodOptions(entailment=ServedJudge(), similarity=EmbeddingSimilarity())
    """

    name: str = "the served model as judge"
    entails: str = (
        "Question: {question}\nAnswer A: {first}\nAnswer B: {second}\n"
        "If answer A is true, is answer B true, too? Reply with one word: Yes, Unknown or No."
    )
    same: str = (
        "Question: {question}\nAnswer A: {first}\nAnswer B: {second}\n"
        "Do both answers mean the same? Reply with one word: Yes or No."
    )

    def __post_init__(self) -> None:
        for name in ("name", "entails", "same"):
            if not isinstance(value := getattr(self, name), str):
                raise ConfigurationError(f"{name} is {described(value)}; it must be a text")

    async def entailments(self, pairs: Pairs, question: str, backend: MeteredBackend) -> Floats:
        """Return [pairs, 3] probabilities of Yes, Unknown and No."""
        replies = ("Yes", "Unknown", "No")
        return await self._shares(self.entails, replies, pairs, question, backend)

    async def similarities(self, pairs: Pairs, question: str, backend: MeteredBackend) -> Floats:
        """Return [pairs] probabilities of Yes, against No."""
        both = await self._shares(self.same, ("Yes", "No"), pairs, question, backend)
        return np.asarray(both[:, 0])

    async def _shares(
        self,
        template: str,
        replies: Sequence[str],
        pairs: Pairs,
        question: str,
        backend: MeteredBackend,
    ) -> Floats:
        prompts = [template.format(question=question, first=a, second=b) for a, b in pairs]
        logprobs = np.asarray(
            await together([reply_logprobs(backend, one, replies, chat=True) for one in prompts])
        )
        return np.asarray(np.exp(logprobs - np.logaddexp.reduce(logprobs, axis=1, keepdims=True)))


async def reply_logprobs(
    backend: MeteredBackend, prompt: str, replies: Sequence[str], *, chat: bool
) -> list[float]:
    """Return the log-probability of each text as the model's reply to a prompt, in one pass.

    In nats, over all of the reply's tokens; with `chat` the prompt is a user's turn.
    """
    prompt_ids = await backend.encode(prompt, chat=chat)
    continuations = [await backend.encode_continuation(reply) for reply in replies]
    candidates = await backend.score_all(prompt_ids, continuations)
    check_scored(candidates)
    return [float(one.trace.logprob.sum()) for one in candidates]


@dataclass(frozen=True)
class EmbeddingSimilarity:
    """The cosine of the texts' mean hidden states in the served model, at least 0."""

    layer: int = -1

    def __post_init__(self) -> None:
        if isinstance(self.layer, bool) or not isinstance(self.layer, int):
            raise ConfigurationError(f"layer is {described(self.layer)}; it must be a whole number")

    @property
    def name(self) -> str:
        """Say which layer the hidden states are of."""
        return f"hidden states of layer {self.layer}"

    async def similarities(self, pairs: Pairs, question: str, backend: MeteredBackend) -> Floats:
        """Return [pairs] cosines; an empty text is like nothing but itself."""
        texts = sorted({text for pair in pairs for text in pair})
        ids = await together([backend.encode(text) for text in texts])
        known = {text: tokens for text, tokens in zip(texts, ids, strict=True) if tokens}
        seen = await backend.inspect_all(list(known.values()), Inspection((self.layer,)))
        means = {
            text: np.asarray(one.hidden[self.layer].mean(0))
            for text, one in zip(known, seen, strict=True)
        }
        return np.array([_cosine(means, a, b) for a, b in pairs])


def _cosine(means: Mapping[str, Singles], first: str, second: str) -> float:
    if first == second or first not in means or second not in means:
        return float(first == second)
    a, b = means[first], means[second]
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    # By rounding, a cosine can be above 1; one that is not a number stays so.
    return float(np.clip(a @ b / lengths, 0.0, 1.0)) if lengths else np.nan


@dataclass(frozen=True)
class Classifier:
    """A classifier of text pairs from a folder or the hub, run by transformers.

    With entailment labels (such as microsoft/deberta-large-mnli) it judges entailment, with a
    single output (such as cross-encoder/stsb-roberta-large) similarity.

    Example:
        >>> options = MethodOptions(entailment=Classifier("microsoft/deberta-large-mnli"))
    """

    model: str
    batch_size: int = 16

    def __post_init__(self) -> None:
        """Refuse what can never be loaded; whether the hub has a model shows on first use."""
        check_model_source(self.model, "classifier", "config.json")
        size = self.batch_size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigurationError(
                f"batch_size is {described(size)}; allowed are whole numbers from 1"
            )
        for package in ("transformers", "torch"):
            if find_spec(package) is None:
                raise MissingDependencyError(package, "hf")

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model

    async def entailments(self, pairs: Pairs, question: str, backend: MeteredBackend) -> Floats:
        """Return [pairs, 3] probabilities by the model's own labels."""
        logits = await asyncio.to_thread(self._logits, pairs)
        labels = {str(k).upper(): i for k, i in self._loaded[1].config.label2id.items()}
        if not {"ENTAILMENT", "NEUTRAL", "CONTRADICTION"} <= labels.keys():
            raise ConfigurationError(f"{self.model} has no entailment labels but {sorted(labels)}")
        shares = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        order = [labels[name] for name in ("ENTAILMENT", "NEUTRAL", "CONTRADICTION")]
        return np.asarray(shares[:, order])

    async def similarities(self, pairs: Pairs, question: str, backend: MeteredBackend) -> Floats:
        """Return [pairs] similarities: the logistic function of the single output."""
        logits = await asyncio.to_thread(self._logits, pairs)
        if logits.shape[1] != 1:
            raise ConfigurationError(f"{self.model} has {logits.shape[1]} outputs instead of one")
        return np.asarray(1.0 / (1.0 + np.exp(-logits[:, 0])))

    def _logits(self, pairs: Pairs) -> Floats:
        import torch

        tokenizer, model = self._loaded
        rows = []
        for start in range(0, len(pairs), self.batch_size):
            batch = [list(pair) for pair in pairs[start : start + self.batch_size]]
            encoded = tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                rows.append(model(**encoded.to(model.device)).logits.double().cpu().numpy())
        return np.concatenate(rows)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        hide_mismatched_builds()
        try:
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ImportError as error:
            raise MissingDependencyError("transformers", "hf") from error
        source = str(existing_folder(self.model) or self.model)
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
            return tokenizer, AutoModelForSequenceClassification.from_pretrained(source).eval()
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"cannot load the classifier {described(self.model)}: {reason(error)}"
            ) from error


def check_model_source(model: object, what: str, needed: str) -> None:
    """Raise where a name or folder can never be loaded; a folder has the file `needed`."""
    if not isinstance(model, str):
        raise ConfigurationError(f"model is {described(model)}; it must be a name or path")
    folder = existing_folder(model)
    if model.startswith((".", "/", "~")) and folder is None:
        raise ModelNotFoundError(f"there is no {what} in the folder {described(model)}")
    if folder and not (folder / needed).is_file():
        raise ModelNotFoundError(f"the folder {described(model)} holds no {needed}")
