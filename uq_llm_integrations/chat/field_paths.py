"""How the fields of an object are named: each by a path of its own.

A path is a row of steps: `.key` into an object, without the point at the beginning, `[index]` into
an array, and `["key"]`, the key as JSON writes it, for a key that is empty or has a point or a
square bracket in it. So `a.b` is the key b within a, `["a.b"]` the key a.b, `a[0]` the first item
of a, and `a.0` the key 0 within a.
"""

import json
import re

# Half of a surrogate pair is written as JSON can, since no encoding has it.
_PLAIN = re.compile(r"[^.\[\]\ud800-\udfff]+")


def step(key: str | int) -> str:
    """Return a path of one step: into an object by its key, into an array by the index.

    Example:
        >>> step("a"), step(0), step("a.b")
        ('a', '[0]', '["a.b"]')
    """
    if isinstance(key, int):
        return f"[{key}]"
    return (
        key if _PLAIN.fullmatch(key) else f"[{json.dumps(key, ensure_ascii=not _is_unicode(key))}]"
    )


def joined(first: str, second: str) -> str:
    """Return the path that goes on from the end of the first; either may be empty.

    Example:
        >>> joined("a", "b"), joined("a", "[0].b")
        ('a.b', 'a[0].b')
    """
    return f"{first}.{second}" if first and second and second[0] != "[" else first + second


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
