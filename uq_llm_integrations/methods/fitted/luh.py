"""Pre-trained uncertainty heads of the `luh` package, https://aclanthology.org/2025.emnlp-main.1809.

`luh` is at https://github.com/IINemo/llm-uncertainty-head and is on no package index. It needs
lm-polygraph, and its heads are on the hub under `llm-uncertainty-head`, each for one model.

With random weights, six of its kinds of head that read hidden states, attention and probabilities
of a small model gave what luh itself gives (its commit fc213ed), to 1e-7. Not run: a trained head
from the hub, on its own model, and the lookback lens, whose tokenizer has to be fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Protocol, Self, cast

import numpy as np

from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds
from uq_llm_integrations.checkpoints import existing_folder
from uq_llm_integrations.errors import (
    ConfigurationError,
    MethodUnavailableError,
    MissingDependencyError,
    ModelNotFoundError,
    described,
    reason,
)
from uq_llm_integrations.plain_data import load_yaml, read_text
from uq_llm_integrations.records import Activations, Candidate, Floats, Inspection

if TYPE_CHECKING:
    import torch

_SOURCE = "git+https://github.com/IINemo/llm-uncertainty-head"
_PROBABILITIES = "FeatureExtractorTokenProbabilities"
_HIDDEN = "FeatureExtractorBasicHiddenStates"
_READERS = {
    _PROBABILITIES,
    _HIDDEN,
    "FeatureExtractorBasicAttention",
    "FeatureExtractorLookbackLens",
}
_FILES = ["config.yaml", "weights.pth"]

Indices = Sequence[int]


class Reader(Protocol):
    """A part of a head that takes features out of a model's output; its class is known by name.

    `top_n` and `temperature` are of those that read probabilities, `_layer_nums` of those that
    read hidden states.
    """

    top_n: int
    temperature: float
    _layer_nums: Sequence[int]

    def __call__(
        self, inputs: Mapping[str, object], outputs: Mapping[str, object], /
    ) -> torch.Tensor:
        """Return [1, S - 1, features]."""


class Readers(Protocol):
    """All readers of a head."""

    _feature_extractors: Sequence[Reader]


class HeadModule(Protocol):
    """What is used of a head of `luh`, a torch module."""

    model_type: str
    output_attentions: bool
    feature_extractor: Readers

    def parameters(self) -> Iterator[torch.Tensor]:
        """Return its weights."""

    def to(self, device: str, /) -> Self:
        """Move it to a device."""

    def eval(self) -> Self:
        """Set it to inference."""

    def _compute_tensors(
        self, inputs: Mapping[str, object], features: torch.Tensor, attended: torch.Tensor, /
    ) -> torch.Tensor: ...


@dataclass(frozen=True, eq=False)
class LuhHead:
    """A head of `luh`, fed with what a backend shows of the model that it was trained for.

    It is given what its own teacher-forced pass gives it: at each token of prompt and answer but
    the last, hidden states, attention and the most probable next tokens. A head for claims scores
    the answer as one claim of all its tokens, one for tokens as the mean over them.

    Example:
        head = LuhHead.from_pretrained("llm-uncertainty-head/uhead_Mistral-7B", "mistralai/...")
        options = MethodOptions(head=head)
    """

    name: str
    head: HeadModule
    inspection: Inspection
    top_logprobs: int

    @classmethod
    def from_pretrained(
        cls, name: str, model: str, *, device: str = "cpu", revision: str | None = None
    ) -> Self:
        """Load a head from a folder or the hub; `model`, of the same, is what it was trained for.

        Of the model only the configuration is read. Raises MissingDependencyError without `luh`,
        ModelNotFoundError where head or model cannot be loaded, and MethodUnavailableError for a
        head that reads what no backend shows.
        """
        luh = _luh()
        folder = _folder(name, revision)
        _check_readers(name, Path(folder) / _FILES[0])
        base = SimpleNamespace(config=_model_configuration(model))
        try:
            head = luh.AutoUncertaintyHead.from_pretrained(folder, base)
        except Exception as error:  # theirs, and so anything
            why = f"cannot load the luh head {described(name)}: {reason(error)}"
            raise ModelNotFoundError(why) from error
        return cls(name, head.to(device).eval(), _inspection(head), _top_logprobs(head))

    def doubt(self, candidate: Candidate, seen: Activations) -> float:
        """Return the probability from 0 to 1 that the answer is wrong."""
        (whole,) = self.doubts(candidate, seen, [range(len(candidate.token_ids))])
        return float(whole)

    def doubts(self, candidate: Candidate, seen: Activations, claims: Sequence[Indices]) -> Floats:
        """Return [claims] probabilities that each is wrong, given the indices of its tokens.

        `seen` is of prompt and answer, and the candidate's trace has the top log-probabilities.
        Raises ConfigurationError where the head fails.
        """
        import torch

        try:
            with torch.inference_mode():
                logits = self._logits(candidate, seen, claims)
        except Exception as error:  # theirs, and so anything
            why = f"the luh head {described(self.name)} fails: {reason(error)}"
            raise ConfigurationError(why) from error
        found = torch.sigmoid(logits).double().cpu().numpy()
        if self.head.model_type == "claim":
            return np.asarray(found)
        first = len(candidate.prompt_ids) - 1
        return np.array([found[[first + index for index in tokens]].mean() for tokens in claims])

    def _logits(
        self, candidate: Candidate, seen: Activations, claims: Sequence[Indices]
    ) -> torch.Tensor:
        """Return [claims] logits; a head for tokens gives [S - 1], for each token but the first."""
        import torch

        device = next(self.head.parameters()).device
        ids, start = candidate.prompt_ids + candidate.token_ids, len(candidate.prompt_ids)
        masks = torch.zeros(len(claims), len(ids) - 1, dtype=torch.long)
        for row, tokens in zip(masks, claims, strict=True):
            row[[start - 1 + index for index in tokens]] = 1
        inputs = {
            "input_ids": torch.tensor([ids]),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
            "context_lengths": torch.tensor([start]),
            "claims": [masks.to(device)],
        }
        features = self._features(candidate, seen, inputs).to(device)
        attended = torch.ones(1, len(ids) - 1, dtype=torch.long, device=device)
        return self.head._compute_tensors(inputs, features, attended)[0, :, 0]

    def _features(
        self, candidate: Candidate, seen: Activations, inputs: Mapping[str, object]
    ) -> torch.Tensor:
        """Return [1, S - 1, features], as the head's own readers make them."""
        import torch

        outputs = _outputs(seen, inputs)
        return torch.cat(
            [
                _probabilities(candidate, reader.top_n)
                if type(reader).__name__ == _PROBABILITIES
                else reader(inputs, outputs).float()
                for reader in _readers(self.head)
            ],
            dim=-1,
        )


class _Outputs(dict[str, object]):
    """A model's output as transformers returns it: read by key and by attribute."""

    def __getattr__(self, name: str) -> object:
        if name in self:
            return self[name]
        raise AttributeError(name)


def _outputs(seen: Activations, inputs: Mapping[str, object]) -> _Outputs:
    import torch

    hidden = {layer: torch.tensor(states)[None] for layer, states in seen.hidden.items()}
    maps = seen.attention_maps if seen.attention_maps is not None else ()
    return _Outputs(
        # By the last layer a reader knows a forward pass from a generation.
        hidden_states=hidden | {-1: next(iter(hidden.values()), None)},
        attentions=[torch.tensor(layer)[None] for layer in maps],
        context_lengths=inputs["context_lengths"],
    )


def _probabilities(candidate: Candidate, count: int) -> torch.Tensor:
    """Return [1, S - 1, count] the highest probabilities where the answer's tokens were sampled.

    0 within the prompt, as in the passes that heads are trained on.
    """
    import torch

    top = candidate.trace.top_logprobs
    if top is None:
        raise ConfigurationError("the head reads top log-probabilities, which the trace has not")
    highest = np.exp(-np.sort(-top, axis=1)[:, :count])
    prompt = np.zeros((len(candidate.prompt_ids) - 1, count))
    return torch.tensor(np.concatenate([prompt, highest]), dtype=torch.float32)[None]


def _readers(head: HeadModule) -> Sequence[Reader]:
    return head.feature_extractor._feature_extractors


def _inspection(head: HeadModule) -> Inspection:
    kinds = {type(reader).__name__ for reader in _readers(head)}
    if unknown := kinds - _READERS:
        raise MethodUnavailableError(f"the head reads the model with {', '.join(sorted(unknown))}")
    layers = [
        layer
        for reader in _readers(head)
        if type(reader).__name__ == _HIDDEN
        for layer in reader._layer_nums
    ]
    return Inspection(tuple(dict.fromkeys(layers)), "maps" if head.output_attentions else None)


def _top_logprobs(head: HeadModule) -> int:
    readers = [one for one in _readers(head) if type(one).__name__ == _PROBABILITIES]
    if any(reader.temperature != 1.0 for reader in readers):
        raise MethodUnavailableError("the head reads probabilities at another temperature than 1")
    return max((reader.top_n for reader in readers), default=0)


def _folder(name: str, revision: str | None) -> str:
    if folder := existing_folder(name):
        return str(folder)
    from huggingface_hub import snapshot_download

    try:
        # luh's own download has an argument that the hub's client no longer takes.
        return str(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"there is no luh head {described(name)}: {reason(error)}"
        ) from error


def _check_readers(name: str, path: Path) -> None:
    """Refuse a head whose description names modules of others: luh imports what it names."""
    try:
        description = load_yaml(read_text(path))
        readers = [str(one["name"]) for one in description["feature_extractor"]]
    except (ConfigurationError, KeyError, TypeError) as error:
        raise ModelNotFoundError(
            f"the luh head {described(name)} has no {path.name} that can be read: {reason(error)}"
        ) from error
    if others := [one for one in readers if not one.startswith("luh.")]:
        raise ConfigurationError(
            f"the luh head {described(name)} names the module {described(others[0])}; allowed are "
            "those of luh"
        )


def _model_configuration(model: str) -> object:
    from transformers import AutoConfig

    try:
        return cast(object, AutoConfig.from_pretrained(model))
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"there is no model {described(model)}: {reason(error)}"
        ) from error


def _luh() -> ModuleType:
    if find_spec("luh") is None:
        raise MissingDependencyError("luh", source=_SOURCE)
    hide_mismatched_builds()
    try:
        with _complete_hub():
            return import_module("luh")
    except ImportError as error:
        why = f"luh is installed but cannot be imported: {reason(error)}"
        raise ConfigurationError(why) from error


@contextmanager
def _complete_hub() -> Iterator[None]:
    """Lend the hub's client a name that it no longer has; luh imports it for uploads alone."""
    import huggingface_hub

    if hasattr(huggingface_hub, "Repository"):
        yield
        return
    huggingface_hub.Repository = None
    try:
        yield
    finally:
        del huggingface_hub.Repository
