"""The nouns: what a backend is given, what comes back, and what it is worth.

All log-probabilities and entropies are in nats. Arrays run over the T generated (or scored) tokens
of one candidate; V is the size of the vocabulary, k the number of top log-probabilities requested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Layer = int | Literal["middle"]
Integers = NDArray[np.int64]
JsonObject = dict[str, Any]

JsonMapping = Mapping[str, Any]
"""A JSON object that is only read."""


class StopRule(Protocol):
    """When a sample ends inside the engine: what `EarlyStop` has."""

    @property
    def above(self) -> float:
        """The threshold in nats."""

    @property
    def window(self) -> int:
        """Over how many tokens the mean is taken."""

    @property
    def statistic(self) -> Literal["entropy", "self_certainty"]:
        """What of each token is looked at."""


@dataclass(frozen=True)
class Conversation:
    """Messages of a chat, and the tools that the model may call, in the shape of OpenAI's API.

    `template` has further values for the model's chat template (`enable_thinking=False`, ...). With
    `continues`, the last message is the model's own, and what it says next goes on from there.
    Names of control tokens in all of it are text, unless `allow_special_tokens`.
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    template: Mapping[str, Any] = field(default_factory=dict)
    continues: bool = False
    allow_special_tokens: bool = False

    @property
    def question(self) -> str | None:
        """The text of the last user's message."""
        texts = [one.get("content") for one in self.messages if one.get("role") == "user"]
        return texts[-1] if texts and isinstance(texts[-1], str) else None


@dataclass(frozen=True)
class Request:
    """A prompt in token ids and how to continue it.

    `sampling` holds vLLM's sampling parameters by their own names (`temperature`, `max_tokens`,
    `stop`, `seed`, ...). `top_logprobs` is k; -1 stands for the whole vocabulary. `until` ends a
    sample with the first token after which it returns True for the text so far. `text` is what the
    prompt was encoded from (with `chat`, as a user's turn; with `conversation`, as all of it), for
    a model with another vocabulary. `live` requests the exact statistics of each piece of a stream
    with it, which costs vLLM a call to its worker each. `allow_special_tokens` says whether names
    of control tokens in `text` are these tokens: unless given, in a prompt by itself and not in a
    chat.

    Example:
        >>> Request((1, 2, 3), n=2, sampling={"temperature": 0.7}).n
        2
    """

    prompt_ids: tuple[int, ...]
    n: int = 1
    top_logprobs: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    early_stop: StopRule | None = None
    until: Callable[[str], bool] | None = None
    text: str | None = None
    chat: bool = False
    conversation: Conversation | None = None
    live: bool = False
    allow_special_tokens: bool | None = None

    @property
    def is_data(self) -> bool:
        """Whether names of control tokens in texts of this request are text."""
        if self.allow_special_tokens is None:
            return self.chat or self.conversation is not None
        return not self.allow_special_tokens


@dataclass(frozen=True)
class SampleMonitor:
    """Decides while samples of one request are generated which of them are needed no longer.

    `enough` gets the finished ones and returns whether the others can be aborted. `hopeless` gets
    the log-probabilities of a running one's tokens and the finished ones, and returns whether it
    can be aborted. An aborted sample has the finish reason 'abort' and what it had so far.
    """

    enough: Callable[[Sequence[Candidate]], bool] | None = None
    hopeless: Callable[[Sequence[float], Sequence[Candidate]], bool] | None = None


@dataclass(frozen=True, eq=False)
class TokenTrace:
    """What is known of the distribution that each of T tokens was sampled from.

    The distribution is the model's own: before penalties, temperature, top-p and the like. Under a
    grammar (`grammar=True`) it is the distribution among the tokens that the grammar allows.

    The exact statistics are None where nobody saw the whole distribution; then `why_inexact` says
    why, and the entropy is only known to lie in [`entropy_lower`, `entropy_upper`].
    """

    vocabulary_size: int
    logprob: Floats
    """[T] log-probability of the token itself."""
    rank: Integers | None = None
    """[T] place of the token in its distribution, 1 is the most probable."""
    entropy: Floats | None = None
    """[T] entropy -sum(p log p); higher is more uncertain."""
    varentropy: Floats | None = None
    """[T] variance of -log p under p, in square nats."""
    mean_logprob: Floats | None = None
    """[T] unweighted mean of log p over the tokens that are possible at all."""
    root_sum: Floats | None = None
    """[T] sum of p ** (1/2)."""
    fourth_root_sum: Floats | None = None
    """[T] sum of p ** (1/4)."""
    support: Floats | None = None
    """[T] number of tokens that are possible at all; V unless a grammar forbids some."""
    entropy_lower: Floats | None = None
    entropy_upper: Floats | None = None
    missing_mass: Floats | None = None
    """[T] probability that the known tokens leave over; 0 where the whole distribution was seen."""
    top_ids: Integers | None = None
    """[T, k] the most probable tokens, most probable first (by id where k = V)."""
    top_logprobs: Floats | None = None
    """[T, k] their log-probabilities."""
    why_inexact: str | None = None
    grammar: bool = False
    damage: str | None = None
    """Why what the backend gave cannot be true; then there are no rows, and nothing is scored."""

    def __len__(self) -> int:
        return len(self.logprob)

    def __getitem__(self, part: slice) -> TokenTrace:
        """Return the trace of a part of the tokens, without computing anything again."""
        arrays = {
            f.name: getattr(self, f.name)[part]
            for f in fields(self)
            if isinstance(getattr(self, f.name), np.ndarray)
        }
        return replace(self, **arrays)

    @property
    def is_exact(self) -> bool:
        """Whether the whole distribution was seen at every token."""
        return self.entropy is not None

    def joined(self, other: TokenTrace) -> TokenTrace:
        """Return the trace of these tokens and then the other's; what one lacks, both lack.

        Where the rows of one are damaged, so are those of both.
        """
        damaged = next((one for one in (self, other) if one.damage), None)
        if damaged is not None:  # it has no tokens, and so would count as nothing
            return damaged
        arrays: dict[str, Any] = {}
        for name in (f.name for f in fields(self)):
            ours, theirs = getattr(self, name), getattr(other, name)
            if isinstance(ours, np.ndarray) or isinstance(theirs, np.ndarray):
                fit = ours is not None and theirs is not None and ours.shape[1:] == theirs.shape[1:]
                arrays[name] = np.concatenate([ours, theirs]) if fit else None
        why = self.why_inexact or other.why_inexact
        return replace(self, **arrays, why_inexact=why, grammar=self.grammar or other.grammar)


@dataclass(frozen=True)
class Inspection:
    """What to take from inside the model while given tokens pass through it.

    Layers count as in transformers: 0 is the embedding, l the output of the l-th block, and the
    last one, L, what the final norm makes of it; negative ones count from the end, and 'middle' is
    L // 2. `attention` is 'bands' for what the methods read of the maps, or 'maps' for all, whose
    size grows with the square of the length.
    """

    hidden_layers: tuple[Layer, ...] = ()
    attention: Literal["bands", "maps"] | None = None


@dataclass(frozen=True, eq=False)
class Activations:
    """What was inside the model at each of S tokens, the prompt's and the generated ones'."""

    logprob: Singles
    """[S - 1] log-probability of each token but the first."""
    hidden: Mapping[Layer, Singles] = field(default_factory=dict)
    """Layer, as it was requested -> [S, D] hidden states."""
    attention_self: Singles | None = None
    """[L, H, S] what each token attends to itself."""
    attention_last: Singles | None = None
    """[L, H, S] what the last token attends to each."""
    attention_maps: Singles | None = None
    """[L, H, S, S] what each token (third axis) attends to each (fourth); rows sum to 1."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One continuation of a prompt. The token ids are the truth, the text is a view of them.

    The token ids and the trace keep the stop token or stop string that ended the generation; the
    text leaves it out.
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    trace: TokenTrace
    finish_reason: str | None = None
    """'stop' or 'length' where it ended by itself, 'boundary' where `Request.until` ended it,
    'early_stop' where `Request.early_stop` did, 'abort' where it was needed no longer, 'error'
    where it failed. None for text that was only scored."""
    stop_reason: int | str | None = None
    """The stop token id or stop string that ended it; None for the end-of-text token."""
    cached_tokens: int = 0
    """Prompt tokens that were taken from the engine's prefix cache."""
    error: Exception | None = None
    """Why there is nothing, where this one failed and others of the same request did not."""

    @property
    def is_whole(self) -> bool:
        """Whether it came to an end of its own, so that it can win and vote."""
        return self.finish_reason not in {"abort", "early_stop", "error"}


@dataclass(frozen=True)
class Claim:
    """A part of an answer that can be right or wrong by itself."""

    text: str
    tokens: tuple[int, ...]
    """Indices, among the answer's tokens, of those that say it."""
    value: float | None = None
    """How uncertain it is by the method whose score it belongs to; higher is more uncertain."""


NOT_REQUESTED = "it was not requested"
"""The reason of a score that nobody has computed."""


@dataclass(frozen=True)
class Score:
    """One method's verdict on one candidate; higher is more uncertain, always.

    A sequence-level score has a `value`, or None and a `reason`. Where only top-k was seen the
    value is None and `lower` and `upper` enclose it. A token-level score has `tokens` instead, a
    claim-level score `claims`, each with its own value.
    """

    method: str
    value: float | None = None
    reason: str | None = None
    lower: float | None = None
    upper: float | None = None
    tokens: tuple[float, ...] | None = None
    source: str | None = None
    """What judged entailment or similarity, where the method rests on it."""
    claims: tuple[Claim, ...] | None = None

    def __post_init__(self) -> None:
        claimed = [claim.value for claim in self.claims or ()]
        numbers = [self.value, self.lower, self.upper, *(self.tokens or ()), *claimed]
        if any(number is not None and not math.isfinite(number) for number in numbers):
            raise ValueError(f"{self.method}: an unknown score is None with a reason, not {self}")

    @property
    def is_known(self) -> bool:
        """Whether there is a number to rely on, rather than an interval or a reason."""
        return any(part is not None for part in (self.value, self.tokens, self.claims))


ERROR_PROBABILITY = "ErrorProbability"
"""The method whose complement is the confidence."""


def confidence_of(scores: Mapping[str, Score]) -> float | None:
    """Return the confidence among a candidate's scores, None where there is none."""
    wrong = (one.value for one in scores.values() if one.method == ERROR_PROBABILITY)
    known = next(wrong, None)
    return None if known is None else 1 - known


@dataclass(frozen=True)
class Usage:
    """What an answer cost."""

    prompt_tokens: int = 0
    """Tokens of the prompt, counted once for each time that it was sent."""
    generated_tokens: int = 0
    scored_tokens: int = 0
    """Tokens that a forward pass scored without generating them."""
    cached_tokens: int = 0
    """Prompt tokens that the engine did not compute again."""
    saved_tokens: int = 0
    """Tokens of a slice, which no pass had to score again, and the most that aborted samples, or
    samples never started, could still have taken; of those only where `max_tokens` is set."""
    forward_passes: int = 0
    """Passes of the model one after the other: the longest sample's tokens, and one a scoring."""
    seconds: float = 0.0

    def at_least(self, other: Usage) -> Usage:
        """Return the higher of both in every number."""
        names = (f.name for f in fields(self))
        return Usage(**{name: max(getattr(self, name), getattr(other, name)) for name in names})

    def __add__(self, other: Usage) -> Usage:
        names = (f.name for f in fields(self))
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def __sub__(self, other: Usage) -> Usage:
        names = (f.name for f in fields(self))
        return Usage(**{name: getattr(self, name) - getattr(other, name) for name in names})


@dataclass(frozen=True)
class SamplingEnd:
    """How the sampling ended: all samples complete, stopped before that, or cut by a failure."""

    kind: Literal["complete", "stopped_early", "failed"] = "complete"
    reason: str | None = None


@dataclass(frozen=True)
class Decision:
    """What was decided about the answer, and the condition that caused it.

    `is_uncertain` is True where a condition on the chosen candidate was met, or cannot be known not
    to be, and where the answer came to no end of its own. `text` is what an abstention returns in
    place of the candidate's own text.
    """

    action: Literal["accepted", "abstained", "retried"] = "accepted"
    condition: str | None = None
    is_uncertain: bool = False
    text: str | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """All candidates of one request, the best first, with their scores.

    Example:
        >>> from uq_llm_integrations import ScriptedBackend, UncertaintyModel
        >>> result = UncertaintyModel(ScriptedBackend(["Paris"])).generate("Capital of France?")
        >>> result.text, round(result.score("perplexity").value, 3)
        ('Paris', 1.111)
    """

    candidates: tuple[Candidate, ...]
    scores: tuple[Mapping[str, Score], ...]
    """For each candidate, its scores by the names they were requested by."""
    usage: Usage
    decision: Decision = Decision()
    sampling_end: SamplingEnd = SamplingEnd()
    attempts: tuple[Result, ...] = ()
    """The results that were tried and not kept, in their order."""

    @property
    def candidate(self) -> Candidate:
        """The chosen candidate."""
        return self.candidates[0]

    @property
    def text(self) -> str:
        """The answer: the chosen candidate's text, or what an abstention says in its place."""
        return self.candidate.text if self.decision.text is None else self.decision.text

    @property
    def trace(self) -> TokenTrace:
        """The chosen candidate's trace."""
        return self.candidate.trace

    @property
    def confidence(self) -> float | None:
        """How probable it is that the answer is right, by the model's calibration.

        None where there is no calibration, and where the scores that it reads are unknown.
        """
        return confidence_of(self.scores[0])

    def score(self, name: str) -> Score:
        """Return the chosen candidate's score by the name that it was requested by."""
        return self.scores[0].get(name) or Score(name, reason=NOT_REQUESTED)

    renderer: ClassVar[Callable[[Result], str] | None] = None
    """What shows a result in notebooks, as HTML; `report.heat_map` sets it."""

    def _repr_html_(self) -> str | None:
        render = type(self).renderer
        return None if render is None else render(self)


@dataclass(frozen=True, eq=False)
class StreamPiece:
    """What arrived since the last piece; the last piece carries the whole candidate."""

    text: str
    token_ids: tuple[int, ...]
    trace: TokenTrace
    """The trace of these tokens; in a stream with `Request.live`, with their exact statistics."""
    candidate: Candidate | None = None
