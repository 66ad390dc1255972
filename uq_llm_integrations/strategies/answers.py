"""What two texts must have in common to be the same answer."""

from __future__ import annotations

import re
import unicodedata


def normalised_answer(text: str) -> str:
    """Return the first line that says something, without case, accents, punctuation and articles.

    For longer texts give a function of your own that finds the answer, such as the last number.
    """
    plain = unicodedata.normalize("NFKD", text.strip().split("\n")[0].casefold())
    letters = "".join(c for c in plain if not unicodedata.combining(c))
    words = re.sub(r"[^\w\s]", " ", letters).split()
    return " ".join(word for word in words if word not in {"a", "an", "the"})
