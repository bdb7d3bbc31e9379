"""Which keys lie below a prefix, found without looking at all the others.

A zone's owner can publish a new version of a delegation with every answer, and each ends what is known below that zone.
Going through a full cache for it takes a tenth of a second of the loop, so its price has to be what lies below.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from idtrace.identifier import Prefix

K = TypeVar("K")


class Below(Generic[K]):
    """A set of keys under each ancestor of their prefixes: nine entries a key at most, since a prefix has 8 labels."""

    def __init__(self) -> None:
        self._keys: dict[Prefix, dict[K, None]] = {}

    def add(self, prefix: Prefix, key: K) -> None:
        """Enter a key; a second time changes nothing."""
        for zone in prefix.lineage():
            self._keys.setdefault(zone, {})[key] = None

    def discard(self, prefix: Prefix, key: K) -> None:
        """Take a key out, if it is there."""
        for zone in prefix.lineage():
            keys = self._keys.get(zone)
            if keys is not None:
                keys.pop(key, None)
                if not keys:
                    del self._keys[zone]

    def of(self, zone: Prefix) -> list[K]:
        """Keys whose prefix is ``zone`` or lies below it, first come first."""
        return list(self._keys.get(zone, ()))
