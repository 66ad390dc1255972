"""How likely a sequence can be that no sample has shown yet.

The samples of one prompt form a tree. A sequence that is not among them leaves it at some node by
a token that no sample took there, and can be no more likely than the way to that token.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from uq_llm_integrations.records import Candidate

ALTERNATIVES = 5
"""Top log-probabilities that make the bound sharp: with none, all that the taken tokens leave over
might be a single other token."""

_LEAST_REST = 1e-4  # what rounding in float32 can hide of a distribution's mass


@dataclass
class _Node:
    logprob: float
    """Of the way here."""
    known: dict[int, float] = field(default_factory=dict)
    """Log-probabilities of next tokens: the taken ones and the top ones."""
    weakest: float = 0.0
    """The least of the top log-probabilities; no token beyond the known ones has more."""
    children: dict[int, _Node] = field(default_factory=dict)

    def child(self, candidate: Candidate, place: int) -> _Node:
        token, trace = candidate.token_ids[place], candidate.trace
        logprob = float(trace.logprob[place])
        if trace.top_ids is not None and trace.top_logprobs is not None and trace.top_ids.size:
            tops = trace.top_logprobs[place].tolist()
            self.known.update(zip(trace.top_ids[place].tolist(), tops, strict=True))
            self.weakest = min(tops)
        self.known[token] = logprob
        return self.children.setdefault(token, _Node(self.logprob + logprob))

    def unseen(self) -> float:
        """Return the most that a way can have which leaves the tree here."""
        rest = max(1.0 - math.fsum(map(math.exp, self.known.values())), _LEAST_REST)
        others = [lp for token, lp in self.known.items() if token not in self.children]
        return self.logprob + max(min(math.log(rest), self.weakest), *others, -math.inf)


def is_unbeatable(candidates: Sequence[Candidate], regret: float) -> bool:
    """Return whether no sequence can be more likely than the best one by more than `regret`."""
    whole = [one for one in candidates if one.is_whole and one.token_ids]
    best = max((float(one.trace.logprob.sum()) for one in whole), default=-math.inf)
    return most_unseen(candidates) <= best + regret


def most_unseen(candidates: Iterable[Candidate]) -> float:
    """Return the most log-probability that a sequence can have which is not among the candidates.

    Those that were cut short stand for all sequences that begin as they do.
    """
    root, cut = _Node(0.0), [-math.inf]
    for candidate in candidates:
        node = root
        for place in range(len(candidate.token_ids)):
            node = node.child(candidate, place)
        if not candidate.is_whole and candidate.token_ids:
            cut.append(node.logprob)
    return max(max(cut), *(node.unseen() for node in _inner(root)))


def _inner(root: _Node) -> Iterator[_Node]:
    yield root
    nodes = [root]
    while nodes:
        inner = [child for child in nodes.pop().children.values() if child.children]
        yield from inner
        nodes += inner
