"""Whether texts mean the same: entailment and similarity, each from whatever can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from uq_llm_integrations.errors import (
    ConfigurationError,
    MissingDependencyError,
    ModelNotFoundError,
)
from uq_llm_integrations.methods.wishes import Asking, Compute, Encode, Inspect, Rescore, Together
from uq_llm_integrations.records import Activations, Candidate, Floats, Inspection

Pairs = Sequence[tuple[str, str]]


class Entailment(Protocol):
    """Tells whether the second text of a pair follows from the first."""

    @property
    def name(self) -> str:
        """What it is, for the score that rests on it."""

    def entailments(self, pairs: Pairs, question: str) -> Asking[Floats]:
        """Return [pairs, 3] probabilities: it follows, neither, it is contradicted."""


class Similarity(Protocol):
    """Tells how alike the two texts of a pair are."""

    @property
    def name(self) -> str:
        """What it is, for the score that rests on it."""

    def similarities(self, pairs: Pairs, question: str) -> Asking[Floats]:
        """Return [pairs] similarities from 0 to 1."""


@dataclass(frozen=True)
class ServedJudge:
    """Asks the served model itself, and reads the probabilities of the answers it may give.

    The answers are single words; what the model gives to each is taken relative to all of them, so
    nothing is generated. The larger the model, the better the judge.
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

    def entailments(self, pairs: Pairs, question: str) -> Asking[Floats]:
        """Return [pairs, 3] probabilities of Yes, Unknown and No."""
        return (yield from self._asked(self.entails, ("Yes", "Unknown", "No"), pairs, question))

    def similarities(self, pairs: Pairs, question: str) -> Asking[Floats]:
        """Return [pairs] probabilities of Yes, against No."""
        both = yield from self._asked(self.same, ("Yes", "No"), pairs, question)
        return np.asarray(both[:, 0])

    def _asked(
        self, template: str, options: Sequence[str], pairs: Pairs, question: str
    ) -> Asking[Floats]:
        prompts = [template.format(question=question, first=a, second=b) for a, b in pairs]
        asked = tuple(option_logprobs(prompt, options, chat=True) for prompt in prompts)
        logprobs = np.asarray((yield Together(asked)))
        return np.asarray(np.exp(logprobs - np.logaddexp.reduce(logprobs, axis=1, keepdims=True)))


def option_logprobs(prompt: str, options: Sequence[str], *, chat: bool) -> Asking[list[float]]:
    """Return the log-probability of each option as the model's reply to a prompt, in one pass."""
    prompt_ids = yield Encode(prompt, chat)
    replies = []
    for option in options:
        replies.append((yield Encode(option, follows=True)))
    candidates: list[Candidate] = yield Rescore(prompt_ids, tuple(replies))
    failed = next((one.error for one in candidates if one.error), None)
    if failed is not None:
        raise failed
    return [float(one.trace.logprob.sum()) for one in candidates]


@dataclass(frozen=True)
class EmbeddingSimilarity:
    """The cosine of the texts' mean hidden states in the served model, at least 0."""

    layer: int = -1

    @property
    def name(self) -> str:
        """Say which layer the hidden states are of."""
        return f"hidden states of layer {self.layer}"

    def similarities(self, pairs: Pairs, question: str) -> Asking[Floats]:
        """Return [pairs] cosines; an empty text is like nothing but itself."""
        texts = sorted({text for pair in pairs for text in pair})
        ids = []
        for text in texts:
            ids.append((yield Encode(text)))
        known = [i for i, tokens in enumerate(ids) if tokens]
        asked = tuple(ids[i] for i in known)
        seen: list[Activations] = yield Inspect(asked, Inspection((self.layer,)))
        means = {
            texts[i]: one.hidden[self.layer].mean(0) for i, one in zip(known, seen, strict=True)
        }
        return np.array([_cosine(means, a, b) for a, b in pairs])


def _cosine(means: dict[str, Any], first: str, second: str) -> float:
    if first not in means or second not in means:
        return float(first == second)
    a, b = means[first], means[second]
    return max(0.0, float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))))


@dataclass(frozen=True)
class Classifier:
    """A classifier of text pairs from a folder or the hub, run by transformers.

    With entailment labels (such as microsoft/deberta-large-mnli) it tells entailment, with a single
    output (such as cross-encoder/stsb-roberta-large) similarity.
    """

    model: str
    batch_size: int = 16

    def __post_init__(self) -> None:
        """Refuse what can never be loaded; whether the hub has a model is told on first use."""
        folder = Path(self.model).expanduser()
        if self.model.startswith((".", "/", "~")) and not folder.is_dir():
            raise ModelNotFoundError(f"there is no classifier in the folder {self.model!r}")
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise ModelNotFoundError(f"the folder {self.model!r} holds no config.json")
        for package in ("transformers", "torch"):
            if find_spec(package) is None:
                raise MissingDependencyError(package, "hf")

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model

    def entailments(self, pairs: Pairs, question: str) -> Asking[Floats]:
        """Return [pairs, 3] probabilities by the model's own labels."""
        logits = yield Compute(lambda: self._logits(pairs))
        labels = {str(k).upper(): i for k, i in self._loaded[1].config.label2id.items()}
        if not {"ENTAILMENT", "NEUTRAL", "CONTRADICTION"} <= labels.keys():
            raise ConfigurationError(f"{self.model} has no entailment labels but {sorted(labels)}")
        shares = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        order = [labels[name] for name in ("ENTAILMENT", "NEUTRAL", "CONTRADICTION")]
        return np.asarray(shares[:, order])

    def similarities(self, pairs: Pairs, question: str) -> Asking[Floats]:
        """Return [pairs] similarities: the logistic function of the single output."""
        logits = yield Compute(lambda: self._logits(pairs))
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
        from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds

        hide_mismatched_builds()
        try:
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ImportError as error:
            raise MissingDependencyError("transformers", "hf") from error
        source = str(Path(self.model).expanduser())
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
            return tokenizer, AutoModelForSequenceClassification.from_pretrained(source).eval()
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"cannot load the classifier {self.model!r}: {error}"
            ) from error
