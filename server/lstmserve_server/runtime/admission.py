"""A concurrency limiter that shares its slots fairly among callers."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Final

from lstmserve_server.core.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_SHARE_OF_FREE: Final = 8
"""A caller may have so many times as many places as are free: alone 8 of 9, two 8 of 17 each, and so on.

The dynamic thresholds of Choudhury and Hahne (IEEE/ACM Transactions on Networking 6, 1998), for which no one has to know how many
callers there are. The last place is for someone who has none: so when as many calls have ended as others found, anyone who comes next
finds one, however many they want. Of so few places that it would be a large part of them, anybody may have all.
"""


class FairLimiter:
    """Counts who has how many places."""

    def __init__(self, max_slots: int, what: str, setting: str) -> None:
        """Makes places that are free.

        Args:
            max_slots: how many.
            what: has a place, for the text of a refusal: "calls are running".
            setting: the flag that says how many.
        """
        self._most = max_slots
        self._what = what
        self._setting = setting
        self._taken = 0
        self._by: Counter[str] = Counter()

    @property
    def in_use(self) -> int:
        """How many places are taken."""
        return self._taken

    def check_free(self) -> None:
        """Returns if there is a place.

        Raises:
            Overloaded: there is none.
        """
        if self._taken >= self._most:
            raise Overloaded("", f"{self._taken} {self._what}; expected fewer ({self._setting})")

    @contextlib.contextmanager
    def slot(self, caller: str) -> Iterator[None]:
        """Takes a place while a call is under way.

        Raises:
            Overloaded: there is none, or the caller has its share.
        """
        self.check_free()
        free = self._most - self._taken
        if self._by[caller] and self._most > _MAX_SHARE_OF_FREE and self._by[caller] >= _MAX_SHARE_OF_FREE * (free - 1):
            text = (
                f"{self._taken} {self._what}, {self._by[caller]} of them yours; expected that others find a place too"
            )
            raise Overloaded("", f"{text} ({self._setting})")
        self._taken += 1
        self._by[caller] += 1
        try:
            yield
        finally:
            self._taken -= 1
            self._by[caller] -= 1
            if not self._by[caller]:
                del self._by[caller]
