"""Which arguments are secrets: those that stand under a secret's name, at any depth."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretBytes, SecretStr

SECRETS = frozenset({"api_key", "headers", "hf_token", "token"})
"""The usual names; all that `is_secret_name` holds for are secrets, too.

Of HTTP's headers any may be one: a cookie, the key of a gateway.
"""

# Not every `..._token` is one: `pad_token` and the like are tokens of the model's.
_NAME = re.compile(
    r"(?:(?:\w+[_-])?(?:hf|hub|hugging_?face|github|gitlab|auth|access|session|bearer|refresh|private|id|api)[_-])?token"
    r"|(?:[\w-]+[_-])?(?:api|access|secret|private)[_-]?key(?:[_-]id)?"
    r"|(?:\w+_)?headers"
    r"|(?:[\w-]+[_-])?(?:secret|password|passwd|passphrase|credentials?|authorization)",
    re.IGNORECASE,
)


def is_secret_name(name: object) -> bool:
    """Return whether what stands under this name is a secret.

    Example:
        >>> is_secret_name("hf_token"), is_secret_name("aws_secret_access_key")
        (True, True)
        >>> is_secret_name("pad_token")
        False
    """
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def sealed(value: Any, *, is_secret: bool = False) -> Any:
    """Return arguments with every secret as a `SecretStr`.

    Example:
        >>> sealed({"hf_token": "hf_1", "dtype": "auto"})
        {'hf_token': SecretStr('**********'), 'dtype': 'auto'}
    """
    if isinstance(value, Mapping):
        named = ((name, is_secret or is_secret_name(name)) for name in value)
        return {name: sealed(value[name], is_secret=one) for name, one in named}
    if type(value) in (list, tuple):
        return type(value)(sealed(one, is_secret=is_secret) for one in value)
    if not is_secret or isinstance(value, bool):
        return value
    if isinstance(value, SecretBytes):
        value = value.get_secret_value()
    if isinstance(value, bytes):
        return SecretStr(value.decode(errors="replace"))
    return SecretStr(str(value)) if isinstance(value, str | int | float) else value
