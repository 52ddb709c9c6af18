"""Play a bag onto the graph at its recorded pace, with /clock, and count every message.

    with BagReader(path) as bag:
        player = BagPlayer(node, bag, rate=2.0)
        player.wait_for_subscribers(["/camera/dp/left/image_raw"], timeout_s=30.0)
        report = player.play()

Messages are published as the bytes that were recorded (nothing is decoded), on publishers with the
recorded QoS, in log-time order. /clock runs in bag time: before each group of messages with one
log time, and at `CLOCK_HZ` (wall) between groups, so that nodes with use_sim_time see the bag's
clock and their timers run.
"""

from __future__ import annotations

import importlib
import struct
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from depth_fusion_ros.bags.reader import BagReader, RawMessage, TopicSummary
from depth_fusion_ros.bags.typestore import BagError

CLOCK_HZ = 50.0
MIN_QUEUE_DEPTH = 10  # a bag's recorded depth may be 1: too few for several topics of one stamp

PublishedHook = Callable[[str, int, float], None]
"""Called after each publish with topic, header stamp in ns, and time.monotonic() just before it."""


@dataclass
class PlayReport:
    """What was played: exact counts by topic, what was left out and why, how long it took."""

    published: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    wall_s: float = 0.0
    largest_delay_s: float = 0.0
    unacknowledged: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of messages published, /clock not counted."""
        return sum(self.published.values())


class BagPlayer:
    """Publishers for the topics of one open bag, on a node of the caller.

    Args:
        node: creates the publishers; need not be spun.
        bag: open reader.
        rate: speed against the recording, > 0; 2.0 plays twice as fast.
        topics: absolute names to play; empty = all.
        publish_clock: whether /clock is published.

    Raises:
        ValueError: rate is not positive, or a topic asked for is not in the bag.

    Topics whose message type is not installed are left out, with the reason in `skipped`.
    """

    def __init__(
        self,
        node: Node,
        bag: BagReader,
        *,
        rate: float = 1.0,
        topics: Collection[str] = (),
        publish_clock: bool = True,
    ) -> None:
        if not rate > 0:
            raise ValueError(f"rate = {rate!r}: must be > 0 (1.0 = as recorded)")
        recorded = {summary.name: summary for summary in bag.topics}
        if unknown := sorted(set(topics) - set(recorded)):
            raise ValueError(
                f"topics {', '.join(unknown)} are not in {bag.path}; it has {', '.join(recorded)}"
            )
        self._node, self._bag, self._rate = node, bag, rate
        self.skipped: dict[str, str] = {}
        self.publishers: dict[str, Publisher] = {}
        for name in topics or recorded:
            self._add_publisher(recorded[name])
        self._clock = node.create_publisher(Clock, "/clock", 10) if publish_clock else None
        self._now_ns = bag.start_ns

    def wait_for_subscribers(self, topics: Collection[str], timeout_s: float) -> list[str]:
        """Wait until each topic has a subscriber; return those that still have none.

        /clock ticks (standing at the bag's start) meanwhile, so that nodes on bag time come up.
        """
        deadline = time.monotonic() + timeout_s
        missing = sorted(topics)
        while missing and time.monotonic() < deadline:
            self._tick(self._bag.start_ns)
            missing = [t for t in missing if not self._has_subscriber(t)]
            if missing:
                time.sleep(0.05)
        return missing

    def play(
        self,
        *,
        on_published: PublishedHook | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        acknowledge_timeout_s: float = 5.0,
    ) -> PlayReport:
        """Publish the whole bag, then wait until reliable subscribers have acknowledged it.

        Args:
            on_published: called in this thread after each message.
            should_stop: asked often; True ends playing early.
            acknowledge_timeout_s: longest wait at the end; topics that were not acknowledged by
                then are named in the report.

        Raises:
            BagError: the bag is damaged further in; what was published until then is gone out.
        """
        report = PlayReport(dict.fromkeys(self.publishers, 0), dict(self.skipped))
        started = time.monotonic()
        for message in self._bag.raw(sorted(self.publishers)):
            due = started + (message.log_time_ns - self._bag.start_ns) / 1e9 / self._rate
            self._wait_until(due, message.log_time_ns, should_stop)
            if should_stop():
                break
            report.largest_delay_s = max(report.largest_delay_s, time.monotonic() - due)
            at = time.monotonic()
            self.publishers[message.topic].publish(message.data)
            report.published[message.topic] += 1
            if on_published is not None:
                on_published(message.topic, header_stamp_ns(message), at)
        report.wall_s = time.monotonic() - started
        report.unacknowledged = self._wait_for_acknowledgements(acknowledge_timeout_s)
        return report

    def keep_clock_running(self, duration_s: float, until: Callable[[], bool]) -> bool:
        """Let bag time run on after the last message, so that late work and timers can finish.

        Returns whether `until` became true within `duration_s` (wall seconds).
        """
        deadline = time.monotonic() + duration_s
        while not until():
            if time.monotonic() > deadline:
                return False
            time.sleep(1.0 / CLOCK_HZ)
            self._tick(self._now_ns + int(1e9 / CLOCK_HZ * self._rate))
        return True

    def _add_publisher(self, summary: TopicSummary) -> None:
        try:
            kind = import_message_class(summary.type_name)
        except ImportError as error:
            self.skipped[summary.name] = f"{summary.type_name} is not installed ({error})"
            return
        profile = publisher_qos(summary)
        self.publishers[summary.name] = self._node.create_publisher(kind, summary.name, profile)

    def _wait_for_acknowledgements(self, timeout_s: float) -> list[str]:
        """Return the topics whose reliable subscribers have not acknowledged all in time.

        Asked in glances: one long rclpy call would hold the interpreter's lock, and with it every
        callback of this process, until the next heartbeat (seconds).
        """
        glance, deadline = Duration(nanoseconds=1_000), time.monotonic() + timeout_s
        waiting = [t for t, p in self.publishers.items() if p.get_subscription_count()]
        while True:
            waiting = [t for t in waiting if not self.publishers[t].wait_for_all_acked(glance)]
            if not waiting or time.monotonic() > deadline:
                return waiting
            time.sleep(0.02)

    def _has_subscriber(self, topic: str) -> bool:
        publisher = self.publishers.get(topic)
        return publisher is not None and publisher.get_subscription_count() > 0

    def _wait_until(self, due: float, log_time_ns: int, should_stop: Callable[[], bool]) -> None:
        """Sleep until wall time `due`, ticking /clock on the way and at the log time itself."""
        if log_time_ns == self._now_ns and due <= time.monotonic():
            return
        while (remaining := due - time.monotonic()) > 0 and not should_stop():
            time.sleep(min(remaining, 1.0 / CLOCK_HZ))
            left_ns = max(0.0, due - time.monotonic()) * 1e9 * self._rate
            self._tick(max(self._now_ns, log_time_ns - int(left_ns)))
        self._tick(log_time_ns)

    def _tick(self, bag_time_ns: int) -> None:
        self._now_ns = bag_time_ns
        if self._clock is not None:
            tick = Clock()
            tick.clock.sec, tick.clock.nanosec = divmod(bag_time_ns, 1_000_000_000)
            self._clock.publish(tick)


def publisher_qos(summary: TopicSummary) -> QoSProfile:
    """Return the recorded QoS, with a queue that does not lose messages of a burst.

    Reliable unless the recording says best effort; transient local only where it was recorded.
    """
    recorded = summary.qos
    reliability = recorded.reliability.name if recorded is not None else "RELIABLE"
    durability = recorded.durability.name if recorded is not None else "VOLATILE"
    is_latched = durability == "TRANSIENT_LOCAL"
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=max(MIN_QUEUE_DEPTH, min(recorded.depth, 1000) if recorded is not None else 0),
        reliability=ReliabilityPolicy.BEST_EFFORT
        if reliability == "BEST_EFFORT"
        else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if is_latched else DurabilityPolicy.VOLATILE,
    )


def import_message_class(type_name: str) -> Any:
    """Return the rclpy message class of e.g. ``sensor_msgs/msg/Image``.

    Raises:
        ImportError: the package or the message is not installed.
    """
    try:
        package, _, name = type_name.split("/")
    except ValueError:
        raise BagError(f"message type {type_name!r}: must read package/msg/Name") from None
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except AttributeError:
        raise ImportError(f"{package}.msg has no {name}") from None


def header_stamp_ns(message: RawMessage) -> int:
    """Return the stamp of a serialised message whose first field is a Header; else its log time.

    Read straight from the bytes: the CDR header is 4 bytes (byte 1 = 1 for little endian), then
    follow int32 seconds and uint32 nanoseconds.
    """
    if len(message.data) < 12 or message.type_name == "tf2_msgs/msg/TFMessage":
        return message.log_time_ns
    sec, nanosec = struct.unpack_from("<iI" if message.data[1] & 1 else ">iI", message.data, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)
