"""Names that nobody has yet: where a wish is taken, a number is put behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


class Names:
    """Gives out each name once. taken: names that are not to be given. mark: what stands before a number."""

    def __init__(self, taken: Iterable[str] = (), *, mark: str = "_") -> None:
        self._taken, self._mark = set(taken), mark
        self._counts = Counter[str]()

    def free(self, wish: str) -> str:
        """The wish itself, or the first of wish_2, wish_3 and so on that is not taken; from now on it is."""
        name = wish
        while name in self._taken:
            self._counts[wish] += 1
            name = f"{wish}{self._mark}{self._counts[wish] + 1}"
        self._taken.add(name)
        return name
