"""Messages that were published and never reached us, counted from the publishers' own numbers.

The middleware tells of losses on the way (`message_lost`), and says nothing of messages that its
queue threw out because we took them too slowly. Publishers number what they send, so a gap in the
numbers of one publisher counts both.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

_PUBLISHERS_REMEMBERED = 64


class Losses:
    """Counts lost messages by topic.

    Where the middleware gives no sequence numbers (``publication_sequence_number`` is None or
    missing), `report` of its own events is counted in their place.

    Attributes:
        counts: lost messages by topic. What is lost before the first message of a publisher
            arrives is discovery, and not counted; what is lost after its last is not seen.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._newest: OrderedDict[tuple[str, bytes], int] = OrderedDict()
        self._numbered: set[str] = set()

    def note(self, topic: str, info: Mapping[str, Any]) -> None:
        """Note a message that arrived.

        Args:
            topic: its topic.
            info: rclpy's message info.
        """
        number = info.get("publication_sequence_number")
        if number is None:
            return
        self._numbered.add(topic)
        publisher = info.get("publisher_gid") or {}
        key = topic, bytes(publisher.get("data", b""))
        newest = self._newest.pop(key, None)
        if newest is not None and number > newest + 1:
            self.counts[topic] += number - newest - 1
        self._newest[key] = number if newest is None else max(number, newest)
        while len(self._newest) > _PUBLISHERS_REMEMBERED:
            self._newest.popitem(last=False)

    def report(self, topic: str, count: int) -> None:
        """Count what the middleware reports as lost, on topics whose messages have no numbers."""
        if topic not in self._numbered:
            self.counts[topic] += count
