"""What a model is made of, as hashes: what a calibration goes by to know its model again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from uq_llm_integrations.backends.control_tokens import ControlTokens

_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf"})

_PARTS, _PART_BYTES = 64, 2**16
"""How many parts of a file of weights are read, evenly spaced, and how long each is."""


@dataclass(frozen=True)
class ModelFacts:
    """A model's name and hashes; None where a part is out of reach, such as a server's weights."""

    model: str
    weights: str | None = None
    """Of each file of weights its name, its size, and 64 parts of 64 KiB, evenly spaced."""
    tokenizer: str | None = None
    """Of the vocabulary and the chat template."""
    chat_template: str | None = None


def model_facts(model: str, folder: Path | None, tokenizer: Any) -> ModelFacts:
    """Return the facts of a model whose weights are in a folder; each part may be None."""
    template = ControlTokens.of(tokenizer).template if tokenizer is not None else None
    return ModelFacts(
        model,
        None if folder is None else weights_digest(folder),
        None if tokenizer is None else tokenizer_digest(tokenizer),
        None if template is None else _short(template.encode()),
    )


def tokenizer_digest(tokenizer: Any) -> str:
    """Return what is the same for tokenizers with the same tokens and chat template."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    return _short(repr((vocabulary, ControlTokens.of(tokenizer).template)).encode())


def weights_digest(folder: Path) -> str | None:
    """Return the hash of the weights in a folder, None where it has none.

    It is of parts of each file, so that large models take no time. Other weights, or those after
    further training, differ there; a change of a few numbers between these parts is not seen.
    """
    files = sorted(one for one in folder.glob("*") if one.suffix in _WEIGHTS and one.is_file())
    if not files:
        return None
    found = sha256()
    for file in files:
        found.update(f"{file.name} {file.stat().st_size}\n".encode())
        for part in _parts(file):
            found.update(part)
    return found.hexdigest()[:32]


def _parts(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    step = max(size // _PARTS, _PART_BYTES)
    with file.open("rb") as opened:
        for start in range(0, size, step):
            opened.seek(start)
            yield opened.read(_PART_BYTES)


def _short(data: bytes) -> str:
    return sha256(data).hexdigest()[:32]
