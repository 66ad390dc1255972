"""What becomes of an answer that is too uncertain: a note, another text, or an error."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.errors import ConfigurationError, HighUncertaintyError, described
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.records import Decision, Request, Result
from uq_llm_integrations.strategies.base import PLAIN_DATA, Run, Strategy, check_strategy
from uq_llm_integrations.strategies.condition_text import When, as_condition
from uq_llm_integrations.strategies.conditions import Condition, Scored, check_condition

Action = Literal["annotate", "abstain", "raise"]

ABSTENTION = "I am not sure enough to answer that."


@dataclass(frozen=True)
class Abstain(Strategy):
    """Runs a strategy and acts where its result meets a condition, or cannot be known not to.

    `when` is a condition or its text. 'annotate' marks the decision as uncertain; 'abstain' also
    puts `text` in the answer's place and keeps the candidate; 'raise' raises HighUncertaintyError,
    which carries the result.

    Example:
        strategy = Abstain(BestOfN(4), "entropy > 1.5", action="abstain")
    """

    type = "abstain"

    strategy: Strategy
    when: When
    action: Action = "annotate"
    text: str = ABSTENTION

    def __post_init__(self) -> None:
        check_strategy(self.strategy)
        object.__setattr__(self, "when", as_condition(self.when))
        check_action(self.action)
        if not isinstance(self.text, str):
            raise ConfigurationError(f"text is {described(self.text)}; it must be a text")

    @property
    def can_stream(self) -> bool:  # type: ignore[override]  # it depends on what is wrapped
        """Whether nothing that was shown has to be taken back."""
        return self.action != "abstain" and self.strategy.can_stream

    async def __call__(self, run: Run) -> Result:
        """Run the strategy and act on its result."""
        when = as_condition(self.when)
        result = await self.strategy(run.vary(methods=when.methods))
        return _decide(result, when, self.action, self.text)

    def check(self, request: Request, capabilities: Capabilities, options: MethodOptions) -> None:
        """Refuse a condition that can never be decided."""
        self.strategy.check(request, capabilities, options)
        samples = self.strategy.samples(request)
        check_condition(as_condition(self.when), samples, capabilities, options)

    def samples(self, request: Request) -> int:
        """Return the strategy's."""
        return self.strategy.samples(request)


@dataclass(frozen=True)
class Policy:
    """When an answer is too uncertain, and what happens then.

    `uncertain_when` is a condition or its text; without one no answer is too uncertain.
    `on_high_uncertainty` is the action of `Abstain`, and `abstention_text` what 'abstain' returns
    in the answer's place. Raises ConfigurationError for an action that is not known, or that
    nothing can cause.

    Example:
        >>> policy = Policy("entropy > 1.5", "abstain")
        >>> policy.wrap(Single()).when
        entropy > 1.5
    """

    __pydantic_config__ = PLAIN_DATA

    uncertain_when: When | None = None
    on_high_uncertainty: Action = "annotate"
    abstention_text: str = ABSTENTION

    def __post_init__(self) -> None:
        object.__setattr__(self, "uncertain_when", self.condition)
        check_action(self.on_high_uncertainty, "on_high_uncertainty")
        if not isinstance(self.abstention_text, str):
            raise ConfigurationError(
                f"abstention_text is {described(self.abstention_text)}; it must be a text"
            )
        if self.condition is None and self.on_high_uncertainty != "annotate":
            raise ConfigurationError(
                f"on_high_uncertainty={described(self.on_high_uncertainty)} needs `uncertain_when`"
            )

    @property
    def condition(self) -> Condition | None:
        """The condition on which an answer is too uncertain."""
        return None if self.uncertain_when is None else as_condition(self.uncertain_when)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that must be scored before a result can be decided about."""
        return () if self.condition is None else self.condition.methods

    def wrap(self, strategy: Strategy) -> Strategy:
        """Return the strategy with this policy applied to its results."""
        if self.condition is None:
            return strategy
        return Abstain(strategy, self.condition, self.on_high_uncertainty, self.abstention_text)

    def decide(self, result: Result) -> Result:
        """Return a result, scored by the condition's methods, with what is decided about it.

        Raises HighUncertaintyError where that is what happens on high uncertainty.
        """
        if self.condition is None:
            return result
        return _decide(result, self.condition, self.on_high_uncertainty, self.abstention_text)

    def is_uncertain(self, scored: Scored) -> bool:
        """Return whether an answer is too uncertain; what is not known counts as uncertain."""
        return self.condition is not None and self.condition.is_met(scored)


def check_action(action: str, name: str = "action") -> None:
    """Raise ConfigurationError for an action that is not known."""
    if action not in get_args(Action):
        allowed = ", ".join(get_args(Action))
        raise ConfigurationError(f"{name} is {described(action)}; allowed are {allowed}")


def _decide(result: Result, when: Condition, action: Action, text: str) -> Result:
    """Return the result, acted on where it meets the condition or cannot be known not to."""
    if not when.is_met(result):
        return result
    before = result.decision
    if action == "abstain":
        decision = Decision("abstained", repr(when), True, text)
    else:
        decision = Decision(before.action, repr(when), True, before.text)
    result = replace(result, decision=decision)
    if action == "raise":
        raise HighUncertaintyError(repr(when), result=result)
    return result
