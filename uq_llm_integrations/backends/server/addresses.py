"""The addresses of servers, and what is sent to them with every request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from uq_llm_integrations.errors import ConfigurationError, described

_OWN_HEADERS = frozenset({"authorization", "content-length", "content-type", "host"})


def server_urls(base_url: object) -> tuple[str, ...]:
    """Return the addresses without `/v1` and without what follows it, each of them once.

    Example:
        >>> server_urls(["http://one:8000/v1", "http://two:8000/"])
        ('http://one:8000', 'http://two:8000')
    """
    given = [base_url] if isinstance(base_url, str) else base_url
    if not isinstance(given, Sequence) or isinstance(given, bytes) or not given:
        raise ConfigurationError(
            f"base_url is {described(base_url)}; allowed are an address of a server, such as "
            "'http://localhost:8000', and a list of them"
        )
    found = tuple(_server_url(one) for one in given)
    twice = [one for index, one in enumerate(found) if one in found[:index]]
    if twice:
        raise ConfigurationError(f"base_url has {twice[0]} twice; each server can be there once")
    return found


def _server_url(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or " " in value.strip():
        raise ConfigurationError(f"base_url is {described(value)}; it must be the address as text")
    text = value.strip()
    try:
        parts = urlsplit(text)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if is_whole and "@" in parts.netloc:
        raise ConfigurationError(
            "base_url has a user or a password in it; give them as api_key or in headers"
        )
    if not is_whole or parts.query or parts.fragment:
        raise ConfigurationError(
            f"base_url is {described(value)}; allowed are addresses such as "
            "'http://localhost:8000' or 'https://host/v1'"
        )
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def sealed_key(api_key: object) -> SecretStr | None:
    """Return an api key as a secret."""
    if api_key is None or isinstance(api_key, SecretStr):
        key = api_key
    elif isinstance(api_key, str):
        key = SecretStr(api_key)
    else:
        raise ConfigurationError(f"api_key is of type {type(api_key).__name__}; it must be text")
    if key is not None and not _is_header(key.get_secret_value()):
        raise ConfigurationError("api_key is empty, or has characters that no HTTP header can have")
    return key


def sealed_headers(headers: object) -> dict[str, SecretStr]:
    """Return further headers; their values are secrets, since some of them may be."""
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"headers is of type {type(headers).__name__}; it must map names")
    for name, value in headers.items():
        _check_header(name, value)
    return {
        name: one if isinstance(one, SecretStr) else SecretStr(one) for name, one in headers.items()
    }


def _check_header(name: object, value: Any) -> None:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    is_name = isinstance(name, str) and name.replace("-", "").replace("_", "").isalnum()
    if not is_name or not str(name).isascii():
        raise ConfigurationError(
            f"headers has the name {described(name)}, which no header can have"
        )
    if str(name).lower() in _OWN_HEADERS:
        raise ConfigurationError(f"headers has {name!r}, which the backend sets; see api_key")
    if not isinstance(text, str) or not _is_header(text):
        raise ConfigurationError(f"headers[{name!r}] is no text that an HTTP header can have")


def _is_header(text: str) -> bool:
    return bool(text.strip()) and text.isascii() and text.isprintable()


def request_headers(api_key: SecretStr | None, headers: Mapping[str, SecretStr]) -> dict[str, str]:
    """Return the headers of every request, with the secrets in them."""
    found = {name: one.get_secret_value() for name, one in headers.items()}
    if api_key is not None:
        found["Authorization"] = f"Bearer {api_key.get_secret_value().strip()}"
    return found
