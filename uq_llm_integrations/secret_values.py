"""Secrets among arguments: `SecretStr` from the first line, their values for the engine alone.

Arguments are nested data, so a secret is known by the name that it stands under, at any depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import Annotated, Any, TypeVar

from pydantic import PlainSerializer, SecretBytes, SecretStr, ValidationError

from uq_llm_integrations.errors import EngineStartError, UncertaintyError, reason
from uq_llm_integrations.records import JsonObject
from uq_llm_integrations.secret_names import sealed

T = TypeVar("T")

MASK = str(SecretStr("any"))
"""What stands in a text in the place of a secret."""

_LEAST = 4
"""Characters below which a secret is not looked for in a text, where it would be found anywhere."""


def opened(value: Any) -> Any:
    """Return arguments with the values of all secrets, for those who load a model with them."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {name: opened(one) for name, one in value.items()}
    return type(value)(map(opened, value)) if type(value) in (list, tuple) else value


def without_secrets(arguments: Mapping[str, Any]) -> JsonObject:
    """Return arguments that no secret is among.

    Example:
        >>> without_secrets({"hf_token": "hf_1", "dtype": "auto"})
        {'dtype': 'auto'}
    """
    found: JsonObject = _without(sealed(arguments))
    return found


def _without(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without(one) for name, one in value.items() if not _is_secret(one)}
    if type(value) in (list, tuple):
        return type(value)(_without(one) for one in value if not _is_secret(one))
    return value


def _is_secret(value: object) -> bool:
    return isinstance(value, SecretStr | SecretBytes)


BackendArguments = Annotated[JsonObject, PlainSerializer(without_secrets)]
"""Arguments of a backend as a pydantic field: written without secrets."""


def concealing(arguments: Mapping[str, Any], load: Callable[[], T]) -> T:
    """Return what `load` does; no error of it says one of the secrets, nor does what caused it.

    What others raise about a token (a header that is not legal, a value of the wrong type) often
    repeats it.
    """
    try:
        return load()
    except Exception as error:
        hidden = _concealed(error, arguments)  # no value is left in this frame
        if hidden is error:
            raise
    raise hidden  # here, where it has no context


def _texts(arguments: Any) -> list[str]:
    """Return the secrets as they may be written, the longest first."""
    values = {value for value in _values(sealed(arguments)) if len(value.strip()) >= _LEAST}
    forms = {form for one in values for form in (one, one.strip(), repr(one)[1:-1])}
    return sorted(forms, key=len, reverse=True)


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _values(one)
    elif type(value) in (list, tuple):
        for one in value:
            yield from _values(one)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _reveals(error: BaseException, texts: list[str]) -> bool:
    # Pydantic cuts a long input in its middle, so that no search finds it.
    said = f"{error} {error.args}"
    is_cut = isinstance(error, ValidationError) and bool(texts)
    return is_cut or any(text in said for text in texts)


def _concealed(error: Exception, arguments: Mapping[str, Any]) -> Exception:
    """Return an error without secrets in its text, itself where there is none in its chain.

    An error of somebody else becomes an EngineStartError.
    """
    texts = _texts(arguments)
    if not any(_reveals(one, texts) for one in _chain(error)):
        return error
    if not isinstance(error, UncertaintyError):
        return EngineStartError(f"{type(error).__name__}: {_masked(reason(error), texts)}")
    hidden = copy(error)
    hidden.args = tuple(_masked(one, texts) if isinstance(one, str) else one for one in error.args)
    return hidden


def _masked(text: str, texts: list[str]) -> str:
    for one in texts:
        text = text.replace(one, MASK)
    return text
