"""What a calibration was made with, and what of that is another thing where it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from uq_llm_integrations.calibration.plain_records import PlainRecord

_MOST_SHOWN = 60


@dataclass(frozen=True)
class Origin(PlainRecord):
    """The model, the package and the settings that answers were drawn and scored with.

    Hashes are None where they are out of reach, as a server's weights are.

    Example:
        >>> before = Origin("smollm2", "1.0", settings={"temperature": "0.7"})
        >>> list(Origin("smollm2", "1.0", settings={"temperature": "1"}).differences(before))
        ['temperature is 1, and was 0.7']
    """

    model: str
    package_version: str
    weights: str | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    """Sampling, strategy, prompt form and method options, by their names, as text."""

    def differences(self, before: Origin) -> Iterator[str]:
        """Yield what is another thing here than it was `before`.

        A hash that either side does not know is not compared. The same weights under another name
        are the same model.
        """
        if self.weights is None or before.weights is None:
            yield from _difference("the model", self.model, before.model)
        yield from _difference("the version", self.package_version, before.package_version)
        for name in ("weights", "tokenizer", "chat_template"):
            own, other = getattr(self, name), getattr(before, name)
            if own is not None and other is not None:
                yield from _difference(f"the hash of the {name.replace('_', ' ')}", own, other)
        for name in sorted(self.settings.keys() | before.settings.keys()):
            yield from _difference(name, self.settings.get(name), before.settings.get(name))


def _difference(name: str, own: str | None, other: str | None) -> Iterator[str]:
    if own != other:
        yield f"{name} is {_shown(own)}, and was {_shown(other)}"


def _shown(value: str | None) -> str:
    if value is None:
        return "not set"
    return value if len(value) <= _MOST_SHOWN else value[:_MOST_SHOWN] + " ..."
