"""The output topics of a depth node: made once, computed only where somebody listens.

    outputs = DepthOutputs(node)
    timing = outputs.publish(estimate, rgb, source_info, values)    # worker thread
    outputs.publish_report(report)

Depth leaves first, everything else after it. Metric topics stay silent while the scale is
RELATIVE, and ``relative/inverse_depth`` stays silent while it is metric. ``aif/image`` exists where
depth comes from focus sweeps.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Float64, Header

from depth_fusion_ros.estimation.estimate import DepthEstimate, Provenance, SweepFacts
from depth_fusion_ros.msg import FrameReport
from depth_fusion_ros.ros import navigation_outputs
from depth_fusion_ros.ros.accounting import Totals
from depth_fusion_ros.ros.messages import array_to_image, intrinsics_to_camera_info
from depth_fusion_ros.ros.navigation_outputs import NavigationOutputs
from depth_fusion_ros.ros.products import depth_preview, depth_to_millimetres, organised_cloud
from depth_fusion_ros.ros.qos import OUTPUT_DEPTH, output_qos, overridable

DEPTH = "depth_registered/image_rect"
DEPTH_INFO = "depth_registered/camera_info"
DEPTH_MM = "depth_registered/image_raw"
SIGMA = "depth_registered/sigma"
PROVENANCE = "depth_registered/provenance"
PREVIEW = "depth_registered/preview"
POINTS = "points"
RELATIVE = "relative/inverse_depth"
ALL_IN_FOCUS = "aif/image"
REPORT = "frame_report"
PROCESSING_TIME = "~/debug/processing_time_ms"
PIPELINE_LATENCY = "~/debug/pipeline_latency_ms"
CYCLIC_TIME = "~/debug/cyclic_time_ms"

_TYPES: dict[str, type] = {
    DEPTH: Image, DEPTH_INFO: CameraInfo, DEPTH_MM: Image, SIGMA: Image, PROVENANCE: Image,
    PREVIEW: Image, POINTS: PointCloud2, RELATIVE: Image, REPORT: FrameReport,
    ALL_IN_FOCUS: Image,
    **navigation_outputs.TYPES,
    PROCESSING_TIME: Float64, PIPELINE_LATENCY: Float64, CYCLIC_TIME: Float64,
}


@dataclass(frozen=True)
class PublishTiming:
    """Wall time of the output stage.

    Attributes:
        messages_ms: making messages out of arrays, all topics.
        publish_ms: handing them to the middleware, all topics.
        depth_published_ns: system time at which the depth image (or, while the scale is
            RELATIVE, the relative inverse depth) had been handed over.
    """

    messages_ms: float
    publish_ms: float
    depth_published_ns: int


class DepthOutputs:
    """Lifecycle publishers of everything a depth node says about a frame."""

    def __init__(self, node: Any, navigation: NavigationOutputs, depth: int = OUTPUT_DEPTH, *,
                 with_picture: bool = False) -> None:
        """Make the publishers.

        Args:
            node: rclpy lifecycle node. navigation: makes its clouds and scans.
            depth: messages kept for a reliable listener that is late. Small for live use; replays
                that must not lose a frame take more.
            with_picture: whether there is ``aif/image``.
        """
        self._node = node
        profile = output_qos(depth)
        self._publishers = {
            topic: node.create_lifecycle_publisher(
                kind, topic, profile, qos_overriding_options=overridable()
            )
            for topic, kind in (_TYPES | ({ALL_IN_FOCUS: Image} if with_picture else {})).items()
        }
        self.navigation = navigation
        self._messages_s = self._publish_s = 0.0

    @property
    def publishers(self) -> list[Any]:
        """All of them."""
        return list(self._publishers.values())

    def destroy(self) -> None:
        """Remove the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
        self.navigation.close()

    def publish(
        self,
        estimate: DepthEstimate,
        rgb: NDArray[np.uint8] | None,
        source_info: CameraInfo | None,
        values: Mapping[str, Any],
    ) -> PublishTiming:
        """Publish one estimate.

        Args:
            estimate: what the estimator made.
            rgb: (H, W, 3) uint8 reference view on the depth grid for coloured points, or None.
            source_info: camera_info of the reference view; gives the distortion model.
            values: parameters of the node (cloud.*, clearing.*, scan.*, preview.*).
        """
        self._messages_s = self._publish_s = 0.0
        header = Header(stamp=ns_to_stamp(estimate.stamp_ns), frame_id=estimate.frame_id)
        depth_m, sigma_m = estimate.depth_m, estimate.sigma_m
        if estimate.scale_state.is_metric:
            self._send(DEPTH, lambda: array_to_image(depth_m, "32FC1", header), lazy=False)
        else:
            self._send(RELATIVE, lambda: array_to_image(
                np.ascontiguousarray(estimate.relative_inverse_depth(), np.float32), "32FC1",
                header), lazy=False)
        depth_published_ns = time.time_ns()
        self._send(DEPTH_INFO, lambda: intrinsics_to_camera_info(
            estimate.intrinsics, header, source_info), lazy=False)
        if estimate.scale_state.is_metric:
            self.navigation.publish(estimate, header, values, self._send, self._listened)
        self._send(PROVENANCE, lambda: array_to_image(estimate.provenance, "mono8", header))
        picture = estimate.all_in_focus
        if picture is not None and ALL_IN_FOCUS in self._publishers:
            self._send(ALL_IN_FOCUS, lambda: array_to_image(picture, "rgb8", header))
        if estimate.scale_state.is_metric:
            self._send(SIGMA, lambda: array_to_image(sigma_m, "32FC1", header))
            self._send(DEPTH_MM, lambda: array_to_image(
                depth_to_millimetres(depth_m), "16UC1", header))
            colours = rgb if rgb is not None and rgb.shape[:2] == depth_m.shape else None
            self._send(POINTS, lambda: organised_cloud(
                depth_m, sigma_m, colours, estimate.intrinsics, header))
            self._send(PREVIEW, lambda: array_to_image(depth_preview(
                depth_m, estimate.provenance, values["preview.min_m"], values["preview.max_m"],
            ), "rgb8", header))
        return PublishTiming(self._messages_s * 1e3, self._publish_s * 1e3, depth_published_ns)

    def publish_report(self, report: FrameReport) -> None:
        """Publish the report of a frame."""
        self._publishers[REPORT].publish(report)

    def publish_times(self, **times_ms: float | None) -> None:
        """Publish debug times by topic suffix; None = not known, nothing is sent."""
        for topic, key in ((PROCESSING_TIME, "processing"), (PIPELINE_LATENCY, "latency"),
                           (CYCLIC_TIME, "cyclic")):
            value = times_ms.get(key)
            if value is not None:
                self._publishers[topic].publish(Float64(data=value))

    def _listened(self, topic: str) -> bool:
        return bool(self._publishers[topic].get_subscription_count())

    def _send(self, topic: str, make: Any, *, lazy: bool = True) -> None:
        if lazy and not self._listened(topic):
            return
        publisher = self._publishers[topic]
        start = time.perf_counter()
        message = make()
        made = time.perf_counter()
        publisher.publish(message)
        self._messages_s += made - start
        self._publish_s += time.perf_counter() - made


def ns_to_stamp(stamp_ns: int) -> Time:
    """Return nanoseconds as builtin_interfaces/Time."""
    return Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)


def make_report(
    estimate: DepthEstimate, *, sequence: int, stage_ms: Mapping[str, float], latency_ms: float,
    totals: Totals, gpu_mem_mb: float, degrade_level: int,
) -> FrameReport:
    """Describe a published estimate.

    Args:
        estimate: what was published.
        sequence: number of the frame since activation, from 0.
        stage_ms: wall time by stage, in order of execution.
        latency_ms: last input message received -> depth published, wall time.
        totals: the counters, this frame included.
        gpu_mem_mb: memory held on the accelerator; NaN = none.
        degrade_level: step of the overload ladder with which it was made.
    """
    finite = np.isfinite(estimate.depth_m)
    pixels = max(1, finite.size)
    ratios = (estimate.sigma_m[finite] / estimate.depth_m[finite]) if finite.any() else None
    labels = np.bincount(estimate.provenance.ravel(), minlength=len(Provenance)) / pixels
    stamp = ns_to_stamp(estimate.stamp_ns)
    nan = float("nan")
    sweep = estimate.sweep or SweepFacts(nan, 0, nan, nan)
    return FrameReport(
        header=Header(stamp=stamp, frame_id=estimate.frame_id),
        sequence=sequence,
        inputs_stamp=stamp,
        scale_state=int(estimate.scale_state),
        model_id=estimate.model_id,
        stage_names=list(stage_ms),
        stage_ms=[float(value) for value in stage_ms.values()],
        latency_ms=latency_ms,
        valid_ratio=float(np.count_nonzero(finite) / pixels),
        prior_only_ratio=float(labels[Provenance.PRIOR_ONLY]),
        saturated_ratio=float(labels[Provenance.SATURATED]),
        textureless_ratio=float(labels[Provenance.TEXTURELESS]),
        median_sigma_ratio=nan if ratios is None else float(np.median(ratios)),
        sweep_motion_px=float(sweep.motion_px),
        slices_used=sweep.slices,
        sweep_coverage_diopters=sweep.coverage_diopters,
        sweep_largest_gap_diopters=sweep.largest_gap_diopters,
        sets_received=totals.received,
        dropped_busy=totals.busy,
        dropped_unsynced=totals.unsynced,
        dropped_stale=totals.stale,
        dropped_invalid=totals.invalid,
        degrade_level=int(degrade_level),
        gpu_mem_mb=gpu_mem_mb,
    )
