"""Collect what a depth node publishes, by stamp, and measure how long it took.

    collector = OutputCollector(node)                  # subscribes; the caller spins the node
    player.play(on_published=collector.note_published)
    collector.latencies_ms()                           # set published -> depth received

Callbacks only note arrival time and keep the serialised bytes, so that collecting disturbs what it
measures as little as possible; arrays are decoded when asked for.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from depth_fusion_ros.bags import topics as names
from depth_fusion_ros.bags.images import image_array
from depth_fusion_ros.bags.reader import RawMessage, StampedArray
from depth_fusion_ros.bags.typestore import bag_typestore
from depth_fusion_ros.ros.player import header_stamp_ns, import_message_class
from depth_fusion_ros.ros.replay_paths import DUAL_PIXEL, ReplayPath, SetLayout

DEPTH = "depth_registered/image_rect"
SIGMA = "depth_registered/sigma"
PREVIEW = "depth_registered/preview"
DEPTH_CAMERA_INFO = "depth_registered/camera_info"
POINTS = "points"
FRAME_REPORT = "frame_report"
RELATIVE_INVERSE_DEPTH = "relative/inverse_depth"
ALL_IN_FOCUS = "aif/image"  # of focus sweeps only
DIAGNOSTICS = "/diagnostics"

OUTPUT_TOPICS = {
    DEPTH: "sensor_msgs/msg/Image",
    SIGMA: "sensor_msgs/msg/Image",
    PREVIEW: "sensor_msgs/msg/Image",
    DEPTH_CAMERA_INFO: "sensor_msgs/msg/CameraInfo",
    POINTS: "sensor_msgs/msg/PointCloud2",
    FRAME_REPORT: "depth_fusion_ros/msg/FrameReport",
    RELATIVE_INVERSE_DEPTH: "sensor_msgs/msg/Image",
    ALL_IN_FOCUS: "sensor_msgs/msg/Image",
    DIAGNOSTICS: "diagnostic_msgs/msg/DiagnosticArray",
}
COUNT_ONLY = (POINTS, PREVIEW)  # large: only the newest message is kept, the others are counted


@dataclass
class _Topic:
    """Messages of one topic by stamp, and when they came (time.monotonic, seconds)."""

    type_name: str
    data: dict[int, bytes] = field(default_factory=dict)
    arrived_s: dict[int, float] = field(default_factory=dict)
    count: int = 0


class OutputCollector:
    """Subscriptions (reliable) to the outputs of a depth node in `namespace`.

    Thread-safe: callbacks may run in an executor's thread while the caller asks.

    Args:
        node: of the caller, who spins it. namespace: of all topics.
        path: whose inputs are noted. sets: which stamps make one set; for a focus sweep
            ``path.sets(bag, namespace)``.
        more_topics: output topic -> message type, of which every message is kept.
    """

    def __init__(
        self,
        node: Node,
        namespace: str = names.DEFAULT_NAMESPACE,
        *,
        path: ReplayPath = DUAL_PIXEL,
        sets: SetLayout | None = None,
        more_topics: Mapping[str, str] | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._kinds = {**OUTPUT_TOPICS, **(more_topics or {})}
        self._newest_only = set(COUNT_ONLY) - set(more_topics or {})
        self.path = path
        self._sets = sets or SetLayout()
        self._topics = {topic: _Topic(kind) for topic, kind in self._kinds.items()}
        self._published_s: dict[int, dict[tuple[str, int], float]] = {}
        self._inputs = {names.resolve(namespace, t) for t in path.input_topics}
        self._image_topic = names.resolve(namespace, path.image_topic)
        self._images_sent = 0
        self._diagnostics: dict[str, dict[str, str]] = {}
        self._diagnostic_level: dict[str, tuple[int, str]] = {}
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=50,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.VOLATILE,
        )
        self._subscriptions = [
            node.create_subscription(
                import_message_class(kind),
                names.resolve(namespace, topic),
                self._callback(topic),
                profile,
                raw=True,
            )
            for topic, kind in self._kinds.items()
        ]

    def note_published(self, topic: str, stamp_ns: int, monotonic_s: float) -> None:
        """Record that an input was published; fits BagPlayer.play(on_published=…)."""
        if topic not in self._inputs:
            return
        set_stamp = self._sets.set_of(stamp_ns)
        with self._lock:
            self._images_sent += topic == self._image_topic
            if set_stamp is not None:
                self._published_s.setdefault(set_stamp, {})[topic, stamp_ns] = monotonic_s

    @property
    def sets_sent(self) -> list[int]:
        """Stamps (ns) of the sets of which every message was published, in order."""
        with self._lock:
            return sorted(
                stamp
                for stamp, parts in self._published_s.items()
                if len(parts) == len(self._inputs) * self._sets.size_of(stamp)
            )

    @property
    def images_sent(self) -> int:
        """Number of images published: slices, on the focus-sweep path."""
        with self._lock:
            return self._images_sent

    def stamps(self, topic: str = DEPTH) -> list[int]:
        """Stamps (ns) that were received on an output topic, in order."""
        with self._lock:
            return sorted(self._topics[topic].arrived_s)

    def count(self, topic: str) -> int:
        """Number of messages received on an output topic; larger than stamps() if some repeat."""
        with self._lock:
            return self._topics[topic].count

    def message(self, topic: str, stamp_ns: int) -> Any | None:
        """Return the message (fields as in its .msg) of a stamp, or None if it is not kept."""
        with self._lock:
            data = self._topics[topic].data.get(stamp_ns)
        if data is None:
            return None
        return bag_typestore().deserialize_cdr(data, self._kinds[topic])

    def image(self, topic: str, stamp_ns: int) -> StampedArray | None:
        """Return an image output (depth and sigma in metres, REP-117) of a stamp, or None."""
        found = self.message(topic, stamp_ns)
        if found is None:
            return None
        return StampedArray(stamp_ns, found.header.frame_id, found.encoding, image_array(found))

    def reports(self) -> list[Any]:
        """Return the FrameReports received, by stamp."""
        found = (self.message(FRAME_REPORT, stamp) for stamp in self.stamps(FRAME_REPORT))
        return [report for report in found if report is not None]

    def latencies_ms(self) -> list[float]:
        """Wall milliseconds from the last input of a set published to its depth received."""
        with self._lock:
            arrived = dict(self._topics[DEPTH].arrived_s)
            sent = {stamp: max(parts.values()) for stamp, parts in self._published_s.items()}
        return [1e3 * (arrived[s] - sent[s]) for s in sorted(arrived) if s in sent]

    def stages_ms(self) -> dict[str, list[float]]:
        """Milliseconds of each stage inside the node, from the FrameReports, one per frame.

        `node total` is the time from the last message of the set received to depth published:
        the report's latency_ms, or where that is NaN the sum of all stages but `join`.
        """
        stages: dict[str, list[float]] = {}
        for report in self.reports():
            frame = dict(zip(map(str, report.stage_names), map(float, report.stage_ms)))
            own_ms = sum(value for name, value in frame.items() if name != "join")
            latency_ms = float(report.latency_ms)
            frame["node total"] = latency_ms if math.isfinite(latency_ms) else own_ms
            for name, value in frame.items():
                stages.setdefault(name, []).append(value)
        return stages

    def diagnostics(self, task: str) -> dict[str, str]:
        """Return the newest key-values of a diagnostics task, e.g. ``inputs``; {} if not seen."""
        with self._lock:
            return dict(self._diagnostics.get(task, {}))

    def diagnostic_messages(self) -> dict[str, tuple[int, str]]:
        """Return the newest (level, message) of every diagnostics task seen."""
        with self._lock:
            return dict(self._diagnostic_level)

    def drops(self) -> dict[str, int]:
        """Return dropped sets by cause, from diagnostics `inputs` (``dropped.<cause>``)."""
        return drops_by_cause(self.diagnostics("inputs"))

    def slices(self) -> dict[str, int]:
        """Return how slices ended, from diagnostics `inputs` (``slices.*``); {} if not counted.

        Keys: received, pending, used_complete, used_incomplete, dropped.<cause>; and lost, what
        was published and lost before the node could take it.
        """
        values = self.diagnostics("inputs")
        counts = {
            key.removeprefix("slices."): int(float(value))
            for key, value in values.items()
            if key.startswith("slices.")
        }
        lost = int(float(values.get(f"lost.{self.path.image_topic}", 0)))
        return {**counts, "lost": lost} if lost else counts

    def accounted(self) -> bool:
        """True if estimated + dropped sets are as many as were sent, and so are slices."""
        ended = len(self.stamps(FRAME_REPORT)) + sum(self.drops().values())
        if ended != len(self.sets_sent):
            return False
        if not self.path.counts_slices:
            return True
        slices = self.slices()
        arrived = slices.pop("received", 0)
        return slices.pop("pending", 0) == 0 and (
            arrived + slices.pop("lost", 0) == self.images_sent and arrived == sum(slices.values())
        )

    def _callback(self, topic: str) -> Any:
        def on_message(data: bytes) -> None:
            arrived = time.monotonic()
            raw = RawMessage(topic, self._kinds[topic], 0, data)
            with self._lock:
                entry = self._topics[topic]
                entry.count += 1
                if topic == DIAGNOSTICS:
                    self._take_diagnostics(data)
                    return
                stamp = header_stamp_ns(raw)
                entry.arrived_s.setdefault(stamp, arrived)
                if topic in self._newest_only:
                    entry.data.clear()
                entry.data[stamp] = bytes(data)

        return on_message

    def _take_diagnostics(self, data: bytes) -> None:
        array: Any = bag_typestore().deserialize_cdr(data, OUTPUT_TOPICS[DIAGNOSTICS])
        for status in array.status:
            task = status.name.rpartition(": ")[2]
            self._diagnostics[task] = {pair.key: pair.value for pair in status.values}
            self._diagnostic_level[task] = (int(status.level), status.message)


def drops_by_cause(values: Mapping[str, str]) -> dict[str, int]:
    """Return {cause: count} of the ``dropped.<cause>`` entries that are not zero."""
    counts = {
        key.removeprefix("dropped."): int(float(value))
        for key, value in values.items()
        if key.startswith("dropped.")
    }
    return {cause: count for cause, count in counts.items() if count}


@contextmanager
def spinning(node: Node) -> Iterator[None]:
    """Spin a node in a thread of its own while the `with` block runs."""
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, name=f"spin {node.get_name()}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown()
        thread.join(timeout=5.0)
