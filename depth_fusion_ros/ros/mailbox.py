"""Hand-over from the subscriptions to the worker thread: latest wins, or first in first out.

    box = Mailbox()            # one slot; put() returns what it displaced, for the counters
    box = BoundedFifo(5)       # put() waits while full: back-pressure for replays
    item = box.get(timeout_s)  # None = nothing came

Both are safe between one producer and one consumer thread. After ``close()`` an item put is
handed straight back and a waiting producer or consumer returns at once.
"""

from __future__ import annotations

from collections import deque
from threading import Condition
from typing import Generic, TypeVar

Item = TypeVar("Item")


class BoundedFifo(Generic[Item]):
    """A queue of at most ``capacity`` items that keeps all of them by making the producer wait."""

    def __init__(self, capacity: int) -> None:
        """Make an empty, open queue.

        Raises:
            ValueError: capacity is not positive.
        """
        if capacity < 1:
            raise ValueError(f"capacity = {capacity}: must be at least 1")
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._changed = Condition()
        self._closed = False

    def put(self, item: Item) -> Item | None:
        """Add an item, waiting for room. Return None, or ``item`` itself if closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if self._closed:
                return item
            self._items.append(item)
            self._changed.notify_all()
            return None

    def get(self, timeout_s: float) -> Item | None:
        """Take the oldest item, or None if none comes within ``timeout_s`` or after close()."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._items), timeout_s)
            if self._closed or not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> list[Item]:
        """Refuse further items, wake everybody up and return the items nobody took."""
        with self._changed:
            self._closed = True
            left = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            return left


class Mailbox(BoundedFifo[Item]):
    """One slot, latest wins: the producer never waits and the consumer never falls behind."""

    def __init__(self) -> None:
        super().__init__(capacity=1)

    def put(self, item: Item) -> Item | None:
        """Place an item. Return the one it displaced, ``item`` itself if closed, else None."""
        with self._changed:
            if self._closed:
                return item
            displaced = self._items.pop() if self._items else None
            self._items.append(item)
            self._changed.notify_all()
            return displaced
