"""What is done with the frames of one bag of `depth-fusion evaluate`: scored, drawn, recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.evaluation.costmap_score import CostmapScore, Update, costmap_figures
from depth_fusion_ros.evaluation.metrics import percentiles_ms
from depth_fusion_ros.evaluation.navigation_counts import NavigationClouds, navigation_clouds
from depth_fusion_ros.evaluation.replay_rerun import RerunFrames, rerun_frame
from depth_fusion_ros.evaluation.replay_scores import Row, frame_row, summarise

if TYPE_CHECKING:
    from depth_fusion_ros.cli.evaluate_bag import Job
    from depth_fusion_ros.ros.camera_poses import CameraPoses
    from depth_fusion_ros.ros.offline import OfflineFrame, OfflineReplay
    from depth_fusion_ros.ros.references import Reference


def scored(job: Job, name: str, bag_path: Path, replay: OfflineReplay, target: Path,
           recorded: bool) -> dict[str, Any]:
    """Score every frame of a bag.

    Args:
        replay: configured for the bag. target: the bag's JSON; pictures and recording get its name.
        recorded: whether the Rerun file is written.

    Raises:
        BagError: no frame can be scored; one sentence.
    """
    from depth_fusion_ros.ros.camera_poses import CameraPoses
    from depth_fusion_ros.ros.navigation_parameter_rows import cloud_options

    rows: list[Row] = []
    times_ms: list[float] = []
    counts = {"scored": 0, "without_reference": 0, "without_metric_depth": 0}
    pictures, recording = _Extremes(), RerunFrames(job.rerun_frames if recorded else 1)
    options = cloud_options(replay.values)
    with ExitStack() as open_bags:
        bag = open_bags.enter_context(BagReader(bag_path))
        truths = open_bags.enter_context(BagReader(bag_path))
        reference = _reference(job, truths)
        costmap = _Costmap(job.costmap, CameraPoses(truths, replay.values), replay.values)
        for frame in replay.frames(bag, job.namespace):
            estimate = frame.estimate
            times_ms.append(frame.estimate_ms)
            recording.note(frame.stamp_ns, {"estimate_ms": frame.estimate_ms})
            if not estimate.scale_state.is_metric:
                counts["without_metric_depth"] += 1
                continue
            truth = reference.at(frame.stamp_ns, estimate)
            clouds = navigation_clouds(estimate, options)
            pose = costmap.add(frame, clouds, truth)
            if truth is None:
                counts["without_reference"] += 1
                continue
            row = frame_row(estimate, truth, min_m=job.min_m, max_m=job.max_m, clouds=clouds)
            if math.isnan(row["metrics"]["coverage"]):
                counts["without_reference"] += 1
                continue
            counts["scored"] += 1
            rows.append(row)
            pictures.offer(row["metrics"]["abs_rel"], frame, truth)
            recording.note(frame.stamp_ns, {"abs_rel": row["metrics"]["abs_rel"]})
            if recorded:
                recording.offer(rerun_frame(estimate, frame.rgb, truth, clouds, pose)
                                if recording.wants_next() else None)
    totals = replay.accounts.totals()
    if not rows:
        raise BagError(f"bag {bag_path}: {_why_nothing(counts, totals, replay)}")
    if job.pictures:
        pictures.draw(target.with_suffix(".png"), name)
    if recorded:
        recording.write(target.with_suffix(".rrd"), name=name, farthest_m=job.max_m)
    return {"sets": {"received": totals.received, "estimated": totals.estimated,
                     "dropped": dict(sorted(totals.drops.items())), **counts},
            "why_dropped": dict(sorted(replay.why_dropped.items())),
            "summary": summarise(rows), "rows": rows, "estimate_ms": percentiles_ms(times_ms),
            "costmap": costmap.result()}


class _Costmap:
    """The costmap of one bag, where the camera's pose is known."""

    def __init__(self, parameters: Mapping[str, Any], poses: CameraPoses,
                 values: Mapping[str, Any]) -> None:
        self._parameters, self._poses, self._values = parameters, poses, values
        self._score: CostmapScore | None = None
        self._without_pose = 0

    def add(self, frame: OfflineFrame, clouds: NavigationClouds,
            truth_m: NDArray[np.float32] | None) -> NDArray[np.float64] | None:
        """Make an update of a frame; returns the pose of its camera, None where none is known."""
        stamp_s, estimate = frame.stamp_ns / 1e9, frame.estimate
        if self._score is None:
            self._score = CostmapScore(self._parameters, stamp_s)
        pose = self._poses.at(frame.stamp_ns, estimate.frame_id)
        if pose is None:
            self._without_pose += 1
            return None
        silent = clouds.blind and self._values["cloud.silent_when_blind"]
        self._score.add(Update(stamp_s, pose, estimate.intrinsics, None if silent else clouds,
                               truth_m))
        return pose

    def result(self) -> dict[str, Any]:
        """Counts and figures; only where there was a frame."""
        assert self._score is not None
        counts = self._score.counts() | {"without_pose": self._without_pose}
        return {"frame": self._poses.frame, "counts": counts,
                "figures": costmap_figures([counts])}


def _reference(job: Job, bag: BagReader) -> Reference:
    from depth_fusion_ros.ros.references import LidarReference, PlaneReference, TopicReference

    if job.reference == "plane":
        return PlaneReference(job.plane_m, job.region)
    if job.reference == "lidar":
        return LidarReference(bag, job.topic, tolerance_s=job.tolerance_s)
    return TopicReference(bag, job.topic, namespace=job.namespace, tolerance_s=job.tolerance_s)


def _why_nothing(counts: Mapping[str, int], totals: Any, replay: OfflineReplay) -> str:
    if not totals.received:
        return "no set could be joined: images or lens states are missing; check --namespace"
    if not totals.estimated:
        cause = max(totals.drops, key=totals.drops.__getitem__)
        return (f"all {totals.received} sets were dropped, most as {cause}: "
                f"{replay.why_dropped.get(cause, '')}")
    if counts["without_metric_depth"] == totals.estimated:
        return ("no depth is metric: the lens states are missing or not calibrated; record "
                "lens_state, set lens.focus_source:=constant with the lens.* numbers, or "
                "lens.allow_nominal:=true")
    return (f"none of {totals.estimated} depth images has a reference: their stamps do not meet "
            "within --tolerance-s, or no truth lies in the range that is scored")


class _Extremes:
    """The frames with the least, a typical and the largest error; typical is the middle one of
    the first few, for memory."""

    def __init__(self, kept: int = 9) -> None:
        self._kept = kept
        self._first: list[tuple[float, OfflineFrame, NDArray[np.float32]]] = []
        self._best = self._worst = (math.nan, None, None)  # type: Any

    def offer(self, error: float, frame: OfflineFrame, truth: NDArray[np.float32]) -> None:
        if math.isnan(error):
            return
        item = (error, frame, truth)
        if len(self._first) < self._kept:
            self._first.append(item)
        if not error >= self._best[0]:
            self._best = item
        if not error <= self._worst[0]:
            self._worst = item

    def draw(self, path: Path, name: str) -> None:
        from depth_fusion_ros.evaluation.contact_sheet import PictureRow, write_contact_sheet

        if not self._first:
            return
        middle = sorted(self._first, key=lambda item: item[0])[len(self._first) // 2]
        named = {"best": self._best, "typical": middle, "worst": self._worst}
        if self._best[1] is self._worst[1]:
            named = {"only": middle}
        rows = []
        for label, (error, frame, truth) in named.items():
            estimate = frame.estimate
            rgb = frame.rgb if frame.rgb is not None else np.full(
                (*truth.shape, 3), 128, np.uint8)
            rows.append(PictureRow(label, f"AbsRel {error:.3f}", truth, estimate.depth_m,
                             estimate.sigma_m, {"RGB": rgb}))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_contact_sheet(path, rows, title=name)
