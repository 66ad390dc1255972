"""What a backend and its copies use together, such as a loaded model."""

from __future__ import annotations

import os
import threading
import weakref
from typing import ClassVar, Self
from uuid import uuid4


class Shared:
    """Something that a backend and its copies share; the last of them to leave closes it.

    A copy or a pickle of it is the same object within one process, and in another process, a forked
    child too, a new one made of the same `arguments`. A user that nothing refers to any more counts
    as one that has left.
    """

    _all: ClassVar[weakref.WeakValueDictionary[str, Shared]] = weakref.WeakValueDictionary()

    def __init__(self, *arguments: object) -> None:
        self._arguments = arguments
        self._pid = os.getpid()
        self._users: list[weakref.ref[object]] = []
        self._lock = threading.Lock()
        self._register(uuid4().hex)

    def join(self, user: object) -> None:
        """Count a user."""
        with self._lock:
            self._users.append(weakref.ref(user))

    def leave(self, user: object) -> bool:
        """Count a user no longer, and return whether nobody is left."""
        with self._lock:
            self._users = [one for one in self._users if (one() or user) is not user]
            if not self._users:
                self._all.pop(self._key, None)
            return not self._users

    def __copy__(self) -> Self:
        return self if self._pid == os.getpid() else self._make_anew()

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()

    def __reduce__(self) -> tuple[object, ...]:
        return _find_or_make, (type(self), self._key, self._arguments)

    def _make_anew(self) -> Self:
        return type(self)(*self._arguments)

    def _register(self, key: str) -> None:
        self._key = key
        self._all[key] = self


def _find_or_make(kind: type[Shared], key: str, arguments: tuple[object, ...]) -> Shared:
    found = Shared._all.get(key)
    if found is None or found._pid != os.getpid():
        found = kind(*arguments)
        found._register(key)
    return found
