"""Texts as tokens, where only certain places may have control tokens: all else is plain text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from secrets import token_hex
from typing import Any
from weakref import WeakKeyDictionary

from uq_llm_integrations.backends.control_tokens import ControlTokens, Occurrence
from uq_llm_integrations.errors import InvalidRequestError, described


class DataEncoder:
    """Encodes text as a tokenizer does that has no control tokens but at the given places.

    A fast tokenizer is copied with its control tokens by other names, which nobody can guess and
    which stand at those places: so all around them is split and merged as it is otherwise. A slow
    one encodes what is between them piece by piece.
    """

    def __init__(self, tokenizer: Any, control: ControlTokens) -> None:
        self._tokenizer, self._control = tokenizer, control
        nonce = token_hex(8)
        self._names = {one: f"\ue000{nonce}:{i}\uf8ff" for i, one in enumerate(control.ids)}
        fast = getattr(tokenizer, "backend_tokenizer", None)
        self._renamed: Any = fast and _renamed(fast, self._names, control.ids)

    def ids(
        self, text: str, own: Sequence[Occurrence] = (), *, is_whole: bool = False
    ) -> tuple[int, ...]:
        """Return the tokens of a text; a whole one gets those that the tokenizer puts around."""
        if self._renamed is None:
            ids = self._in_pieces(text, own)
            return tuple(self._tokenizer.build_inputs_with_special_tokens(ids) if is_whole else ids)
        written, end = [], 0
        for one in own:
            written += [text[end : one.start], self._names[one.token]]
            end = one.end
        written.append(text[end:])
        return tuple(self._renamed.encode("".join(written), add_special_tokens=is_whole).ids)

    def _in_pieces(self, text: str, own: Sequence[Occurrence]) -> list[int]:
        ids, end = list[int](), 0
        for one in own:
            ids += [*self._piece(text[end : one.start]), self._control.ids[one.token]]
            end = one.end
        return [*ids, *self._piece(text[end:])]

    def _piece(self, text: str) -> list[int]:
        """Return the tokens of plain text; what would be a control token is cut in two."""
        ids = self._encoded(text)
        if self._is_plain(ids):
            return ids
        cuts = [one.start + 1 for one in self._control.found_in(text, frozenset())[0]]
        bounds = [0, *cuts, len(text)]
        pieces = [text[a:b] for a, b in pairwise(bounds)]
        ids = [number for one in pieces for number in self._encoded(one)]
        if not self._is_plain(ids):
            raise InvalidRequestError(
                f"the tokenizer makes control tokens of {described(text)}, in whatever way it is "
                "given; allowed are texts without their names, or allow_special_tokens=True"
            )
        return ids

    def _encoded(self, text: str) -> list[int]:
        if not text:
            return []
        options = {"add_special_tokens": False, "split_special_tokens": True}
        return list(self._tokenizer.encode(text, **options))

    def _is_plain(self, ids: Sequence[int]) -> bool:
        unknown = getattr(self._tokenizer, "unk_token_id", None)
        return not ({*self._control.ids.values()} - {unknown}).intersection(ids)


def data_encoder(tokenizer: object, control: ControlTokens) -> DataEncoder:
    """Return the encoder of a tokenizer, which is made on first use."""
    known = _encoders.get(tokenizer)
    if known is None or known._control is not control:
        known = _encoders[tokenizer] = DataEncoder(tokenizer, control)
    return known


_encoders: WeakKeyDictionary[object, DataEncoder] = WeakKeyDictionary()


def _renamed(fast: Any, names: Mapping[str, str], ids: Mapping[str, int]) -> Any:
    """Return a copy of a fast tokenizer with other names for some tokens.

    None where they would have other ids.
    """
    parts = json.loads(fast.to_str())
    for one in parts["added_tokens"]:
        one["content"] = names.get(one["content"], one["content"])
    _rename_in_model(parts["model"], names)
    copied = type(fast).from_str(json.dumps({**parts, "truncation": None, "padding": None}))
    is_same = all(copied.token_to_id(names[one]) == number for one, number in ids.items())
    return copied if is_same else None


def _rename_in_model(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """Take the old names from a model, which would find them in plain text, too."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(one, one): number for one, number in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(one, one), score] for one, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        pairs = [one.split(" ", 1) if isinstance(one, str) else one for one in model["merges"]]
        gone = names.keys()
        model["merges"] = [[a, b] for a, b in pairs if not {a, b, a + b} & gone]
