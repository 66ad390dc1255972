"""What becomes of an answer that is too uncertain: a note, another text, or an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.errors import ConfigurationError, HighUncertaintyError
from uq_llm_integrations.methods.registry import DEFAULT_METHODS
from uq_llm_integrations.records import Decision, Request
from uq_llm_integrations.strategies.conditions import Condition
from uq_llm_integrations.strategies.wishes import Steps, Strategy, check_condition

Action = Literal["annotate", "abstain", "raise"]

ABSTENTION = "I am not sure enough to answer that."


@dataclass(frozen=True)
class Abstain(Strategy):
    """Runs a strategy and acts where its result meets a condition, or cannot be known not to.

    'annotate' says so in the decision; 'abstain' also puts `text` in the answer's place and keeps
    the candidate; 'raise' raises HighUncertaintyError, which carries the result.
    """

    strategy: Strategy
    when: Condition
    action: Action = "annotate"
    text: str = ABSTENTION

    def __post_init__(self) -> None:
        if self.action not in get_args(Action):
            allowed = ", ".join(get_args(Action))
            raise ConfigurationError(f"action is {self.action!r}; allowed are {allowed}")

    @property
    def can_stream(self) -> bool:  # type: ignore[override]  # it depends on what is wrapped
        """Whether nothing that was shown has to be taken back."""
        return self.action != "abstain" and self.strategy.can_stream

    def __call__(self, request: Request, methods: Sequence[str] = DEFAULT_METHODS) -> Steps:
        """Run the strategy and act on its result."""
        methods = tuple(dict.fromkeys([*methods, *self.when.methods]))
        result = yield from self.strategy(request, methods)
        if self.when(result) is False:
            return result
        text = self.text if self.action == "abstain" else result.decision.text
        action = "abstained" if self.action == "abstain" else result.decision.action
        result = replace(result, decision=Decision(action, repr(self.when), True, text))
        if self.action == "raise":
            raise HighUncertaintyError(result)
        return result

    def check(self, request: Request, capabilities: Capabilities) -> None:
        """Refuse a condition that cannot be asked."""
        self.strategy.check(request, capabilities)
        check_condition(self.when, self.strategy.samples(request), capabilities, request)

    def samples(self, request: Request) -> int:
        """Return the strategy's."""
        return self.strategy.samples(request)
