"""Where the sentences of a text are: what an answer claims, unless the caller knows better."""

import re
from collections.abc import Callable, Sequence

Span = tuple[int, int]
"""First character of a part of a text, and the one after its last."""

Spans = Callable[[str], Sequence[Span]]

_SENTENCE = re.compile(r"""\S.*?(?:[。？！]+|[.?!…]+(?=["'”’)\]]*(?:\s|$))|(?=\n)|$)["'”’)\]]*""")


def sentences(text: str) -> list[Span]:
    """Return the span of each sentence; a line ends one, and the last need not be finished.

    A full stop ends a sentence where white space follows, which the stop of an abbreviation
    (Dr. Who) does, too.
    """
    return [found.span() for found in _SENTENCE.finditer(text)]
