"""Record topics of a running camera into a bag, byte for byte, and count what was lost.

    with BagWriter(path) as bag, recording(bag, types) as recorder:
        while …:
            recorder.follow()                    # often: hears best-effort publishers too
            recorder.newest("/camera/lens_state")
    recorder.received, recorder.lost

Callbacks only queue; a thread of its own writes, so that a slow disk does not lose messages. The
log time is that at which the middleware received a message, as in rosbag2.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription

from depth_fusion_ros.bags.recording import BagWriter
from depth_fusion_ros.ros.collector import spinning
from depth_fusion_ros.ros.losses import Losses
from depth_fusion_ros.ros.player import import_message_class

if TYPE_CHECKING:
    from typing_extensions import Self

QUEUE_DEPTH = 500


@contextmanager
def recording(bag: BagWriter, types: Mapping[str, str]) -> Iterator[LiveRecorder]:
    """Record on a node of our own while the `with` block runs; see `LiveRecorder`.

    Ctrl-C is left to the caller: rclpy's own handler would pull the node from under the bag.
    """
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node("calibrate_lens", context=context)
        with LiveRecorder(node, bag, types) as recorder, spinning(node):
            yield recorder
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


class LiveRecorder:
    """Subscriptions that write into an open bag; use as a context manager.

    Args:
        node: of the caller, who spins it in another thread. bag: open.
        types: absolute topic -> message type, such as sensor_msgs/msg/Image.

    Attributes:
        received: messages by topic that are, or will be at the end of the block, in the bag.
        failure: what ended writing (a full disk, say); None as long as all is well.
    """

    def __init__(self, node: Node, bag: BagWriter, types: Mapping[str, str]) -> None:
        self._node, self._bag, self._types = node, bag, types
        self._losses = Losses()
        self._lock = threading.Lock()
        self._newest: dict[str, bytes] = {}
        self._queue: queue.SimpleQueue[tuple[str, int, bytes] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="bag writer", daemon=True)
        self.received: Counter[str] = Counter()
        self.failure: Exception | None = None
        self.newest_at_s = time.monotonic()
        """time.monotonic() of the newest message of all."""
        self._subscriptions: dict[str, Subscription] = {}

    def __enter__(self) -> Self:
        self._writer.start()
        for topic in self._types:
            self._subscriptions[topic] = self._subscribe(topic, ReliabilityPolicy.RELIABLE)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._queue.put(None)
        self._writer.join()

    @property
    def lost(self) -> dict[str, int]:
        """Messages that were published and did not arrive, by topic; none = not in it."""
        with self._lock:
            return {topic: count for topic, count in self._losses.counts.items() if count}

    def newest(self, topic: str) -> bytes | None:
        """Serialised message (CDR) that came last; given out once, then None until the next."""
        with self._lock:
            return self._newest.pop(topic, None)

    def publishers(self, topic: str) -> int:
        """Number of nodes that publish a topic now."""
        return int(self._node.count_publishers(topic))

    def follow(self) -> None:
        """Subscribe best effort where a publisher cannot do better, which reliable never hears."""
        for topic, subscription in list(self._subscriptions.items()):
            offered = [end.qos_profile.reliability
                       for end in self._node.get_publishers_info_by_topic(topic)]
            is_reliable = subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE
            if is_reliable and ReliabilityPolicy.BEST_EFFORT in offered:
                self._node.destroy_subscription(subscription)
                self._subscriptions[topic] = self._subscribe(topic, ReliabilityPolicy.BEST_EFFORT)

    def _subscribe(self, topic: str, reliability: ReliabilityPolicy) -> Subscription:
        def callback(data: bytes, info: Any) -> None:
            received_ns = int(info["received_timestamp"]) or time.time_ns()
            self._queue.put((topic, received_ns, bytes(data)))
            with self._lock:
                self._losses.note(topic, info)
                self._newest[topic] = bytes(data)
                self.received[topic] += 1
                self.newest_at_s = time.monotonic()

        def lost(event: Any) -> None:
            with self._lock:
                self._losses.report(topic, int(event.total_count_change))

        # Asked for by name: without a callback of ours rclpy prints a warning for each misfit.
        events = SubscriptionEventCallbacks(incompatible_qos=lambda _: None, message_lost=lost)
        profile = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=QUEUE_DEPTH,
                             reliability=reliability)
        return self._node.create_subscription(
            import_message_class(self._types[topic]), topic, callback, profile, raw=True,
            event_callbacks=events)

    def _write(self) -> None:
        while (entry := self._queue.get()) is not None:
            topic, received_ns, data = entry
            if self.failure is None:
                try:
                    self._bag.write_serialised(topic, self._types[topic], data, received_ns)
                except Exception as error:
                    self.failure = error


__all__ = ["LiveRecorder", "recording"]
