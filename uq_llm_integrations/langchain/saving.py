"""Saving and loading by LangChain's own functions, and what its caches go by."""

from __future__ import annotations

from typing import Any, cast

from langchain_core.load.serializable import SerializedConstructor, SerializedNotImplemented

from uq_llm_integrations.faces import ModelFace


class SavedFace(ModelFace):
    """Is written by `dumpd` and `dumps`, and read by `load` and `loads`.

    They take `allowed_objects=[...]` with the class, and this package among `valid_namespaces`.
    What has no plain form (a ready backend, a function of one's own) is written as LangChain's
    'not_implemented', which `load` refuses by name. Secrets are never written.
    """

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return that it is."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """The argument that is a secret, and where `load` looks for it."""
        return {"api_key": "UQ_LLM_API_KEY"}

    def to_json(self) -> SerializedConstructor | SerializedNotImplemented:
        """Return what `dumpd` writes."""
        written: Any = super().to_json()  # type: ignore[misc]  # LangChain's, which comes behind
        saved, secrets = self.saved(), self.lc_secrets.keys()
        secret = {name: one for name, one in written["kwargs"].items() if name in secrets}
        written["kwargs"] = {**saved.plain, **saved.other, **secret}
        return cast(SerializedConstructor, written)
