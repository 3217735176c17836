"""A concurrency limiter that shares its slots fairly among callers."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

from lstmserve_server.core.errors import Overloaded

_MAX_SHARE_OF_FREE: Final = 8
"""A caller may hold at most 8 times as many slots as are free: one caller gets 8 of 9, two get 8 of 17 each.

These are the dynamic thresholds of Choudhury and Hahne (IEEE/ACM Transactions on Networking 6, 1998), which do not depend on the
number of callers. The last free slot is reserved for a caller that holds none. Limits of 8 or fewer are not divided.
"""


class FairLimiter:
    """Concurrency limiter with fair shares."""

    def __init__(self, max_slots: int, what: str, setting: str) -> None:
        """Creates a limiter whose slots are all free.

        Args:
            max_slots: how many.
            what: what holds a slot, for error texts: "calls are running".
            setting: the flag of the limit.
        """
        self._most = max_slots
        self._what = what
        self._setting = setting
        self._taken = 0
        self._by: Counter[str] = Counter()

    @property
    def in_use(self) -> int:
        """Number of slots in use."""
        return self._taken

    def check_free(self) -> None:
        """Checks that a slot is free.

        Raises:
            Overloaded: there is none.
        """
        if self._taken >= self._most:
            raise Overloaded("", f"{self._taken} {self._what}, which is the maximum ({self._setting}). Try again later")

    @contextlib.contextmanager
    def slot(self, caller: str) -> Iterator[None]:
        """Holds a slot while a call is in flight.

        Raises:
            Overloaded: there is none, or the caller has used up its share.
        """
        self.check_free()
        free = self._most - self._taken
        if self._by[caller] and self._most > _MAX_SHARE_OF_FREE and self._by[caller] >= _MAX_SHARE_OF_FREE * (free - 1):
            text = f"{self._taken} {self._what}, {self._by[caller]} of them yours; your fair share is used up"
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
