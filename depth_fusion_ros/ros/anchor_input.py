"""``anchor/range``: known distances that turn uncalibrated dioptres into metres (ANCHORED)."""

from __future__ import annotations

import math
from collections import deque
from threading import Lock
from typing import Any

from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Range
from std_srvs.srv import Trigger

from depth_fusion_ros.estimation.estimate import DepthEstimate, ScaleState
from depth_fusion_ros.estimation.scale_anchor import AnchorFit, ScaleAnchor, seen_diopters
from depth_fusion_ros.optics.intrinsics import Intrinsics
from depth_fusion_ros.ros.messages import stamp_to_ns
from depth_fusion_ros.ros.parameters import Parameter

TOPIC = "anchor/range"
KEPT = 50
LEAST_HALF_WIDTH_PX = 4

ANCHOR_ROWS = (
    Parameter("anchor.enable", False, "Use known distances on `anchor/range` (sensor_msgs/Range) "
              "to correct a lens whose dioptres are not calibrated: one fixes the offset, two that "
              "differ the scale too. The sensor looks along the optical axis; its "
              "distances count as depths. Depth is then metric (ANCHORED)."),
    Parameter("anchor.roi", "", "Where in the depth image the range sensor looks: x, y, width, "
              "height in px; empty = the cone of the Range message around the principal point.",
              unit="px", pattern=r"(\d+ *, *\d+ *, *[1-9]\d* *, *[1-9]\d*)?", dynamic=True),
    Parameter("anchor.sigma_m", 0.02, "Standard deviation of the known distances.", unit="m",
              minimum=0.0001, maximum=10.0, dynamic=True),
    Parameter("anchor.max_skew_s", 0.1, "Largest difference of the stamps of a known distance and "
              "the depth image it is compared with.", unit="s", minimum=0.0, maximum=10.0,
              dynamic=True),
)


class AnchorInput:
    """Joins known distances with estimates and keeps the fit. Thread-safe.

    Args:
        node: offers ``~/reset_anchor`` from now on.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._anchor = ScaleAnchor()
        self._lock = Lock()
        self._ranges: deque[tuple[int, Range]] = deque(maxlen=KEPT)
        self._subscription: Any = None
        self._fit: AnchorFit | None = None
        self._counts = {"ranges": 0, "not_a_distance": 0, "not_seen": 0, "used": 0}
        self._newest_ns = 0
        node.create_service(Trigger, "~/reset_anchor", self._on_reset)

    def start(self) -> None:
        """Subscribe, if `anchor.enable` says so."""
        if self._node.values["anchor.enable"]:
            self._subscription = self._node.create_subscription(
                Range, TOPIC, self._on_range, QoSProfile(
                    history=HistoryPolicy.KEEP_LAST, depth=KEPT,
                    reliability=ReliabilityPolicy.BEST_EFFORT))

    def stop(self) -> None:
        """Unsubscribe; what was learned stays."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def correction(self, scale_state: ScaleState) -> AnchorFit | None:
        """What to correct a lens with; None where it is calibrated, or nothing is known yet."""
        if not self._node.values["anchor.enable"] or scale_state == ScaleState.ABSOLUTE:
            return None
        with self._lock:
            return self._fit

    def observe(self, estimate: DepthEstimate) -> None:
        """Worker thread: compare an estimate with the known distance nearest to it in time."""
        values = self._node.values
        if not values["anchor.enable"]:
            return
        with self._lock:
            known = min(self._ranges, key=lambda item: abs(item[0] - estimate.stamp_ns),
                        default=None)
            if known is None:
                return
            if abs(known[0] - estimate.stamp_ns) > values["anchor.max_skew_s"] * 1e9:
                return
            self._ranges.remove(known)
            seen = seen_diopters(
                estimate, _region(values["anchor.roi"], estimate.intrinsics, known[1]))
            if seen is None:
                self._counts["not_seen"] += 1
                return
            self._anchor.observe(seen, float(known[1].range), values["anchor.sigma_m"])
            self._counts["used"] += 1
            self._newest_ns = estimate.stamp_ns
            self._fit = self._anchor.fit()
            refusal = self._anchor.refusal
        if refusal:
            self._node.warn_rarely("anchor", refusal)

    def facts(self) -> dict[str, Any]:
        """What diagnostics show."""
        if not self._node.values["anchor.enable"]:
            return {}
        with self._lock:
            fit, newest_ns, counts = self._fit, self._newest_ns, dict(self._counts)
        found: dict[str, Any] = {f"anchor.{name}": count for name, count in counts.items()}
        if fit is not None:
            age_s = self._node.age_s(newest_ns)
            found.update({"anchor.scale": fit.scale, "anchor.fixes_scale": fit.fixes_scale,
                          "anchor.offset_diopters": fit.offset_diopters,
                          "anchor.sigma_diopters": fit.sigma_diopters,
                          "anchor.observations": fit.observations, "anchor.age_s": age_s})
        return found

    def _on_range(self, message: Range) -> None:
        with self._lock:
            self._counts["ranges"] += 1
            distance = message.range
            # REP-117: ±Inf is too far or too near, NaN an error.
            if not (math.isfinite(distance) and distance > 0
                    and message.min_range <= distance <= message.max_range):
                self._counts["not_a_distance"] += 1
                return
            self._ranges.append((stamp_to_ns(message.header.stamp), message))

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            self._anchor.reset()
            self._fit = None
            self._ranges.clear()
        response.success, response.message = True, "known distances are forgotten"
        return response


def _region(roi: str, intrinsics: Intrinsics, message: Range) -> tuple[slice, slice]:
    """Rows and columns of the depth image that the range sensor sees."""
    if roi:
        x, y, width, height = (int(number) for number in roi.split(","))
        return slice(y, y + height), slice(x, x + width)
    half_angle = min(max(message.field_of_view, 0.0), 2.0) / 2
    spans = []
    for focal_px, centre_px in ((intrinsics.fy_px, intrinsics.cy_px),
                                (intrinsics.fx_px, intrinsics.cx_px)):
        half = max(LEAST_HALF_WIDTH_PX, focal_px * math.tan(half_angle))
        spans.append(slice(max(0, round(centre_px - half)), max(0, round(centre_px + half) + 1)))
    return spans[0], spans[1]
