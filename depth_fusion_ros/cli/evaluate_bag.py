"""One bag of `depth-fusion evaluate`: replayed, scored, drawn. Runs in any process."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.bags import topics as names
from depth_fusion_ros.bags.find import bag_sha256
from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.typestore import BagError

if TYPE_CHECKING:
    from depth_fusion_ros.evaluation.replay_scores import Row
    from depth_fusion_ros.ros.offline import OfflineFrame, OfflineReplay
    from depth_fusion_ros.ros.references import Reference

SCHEMA = 1
PACKED_IMAGE = "dp/image_raw"


@dataclass(frozen=True)
class Job:
    """What to do with every bag.

    Attributes:
        path: dual_pixel, focus_sweep, or auto: by what the bag has.
        values: path → all parameters of its node. model_ids: path → model that they name.
        reference: topic, plane or lidar. topic: of the reference. tolerance_s: largest difference
            of its stamps. plane_m: distance of the plane. region: x, y, width, height of it, px.
        namespace: of the camera. min_m, max_m: truth outside is not scored.
        pictures: whether each bag's best, typical and worst frame are drawn.
    """

    path: str
    values: Mapping[str, Mapping[str, Any]]
    model_ids: Mapping[str, str]
    reference: str
    topic: str
    tolerance_s: float
    plane_m: float
    region: tuple[int, int, int, int] | None
    namespace: str
    min_m: float
    max_m: float
    pictures: bool = True

    def key(self, sha256: str) -> str:
        """What the result of a bag depends on, as one number."""
        text = json.dumps([SCHEMA, _code_sha256(), sha256, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def evaluate_bag(job: Job, name: str, bag_path: Path, folder: Path) -> dict[str, Any]:
    """Score one bag, or return what was found before with the same bag, job and code.

    Writes `folder`/NAME.json, last and at once, so that it is there only when it is whole, and
    NAME.png: the best, a typical and the worst frame.

    Raises:
        BagError: the bag cannot be used; one sentence.
    """
    target = folder / f"{name.replace('/', '__')}.json"
    sha256 = bag_sha256(bag_path)
    key = job.key(sha256)
    if (before := finished(target)) is not None and before["key"] == key:
        return before
    with BagReader(bag_path) as bag:
        if not bag.message_count:
            raise BagError(f"bag {bag_path}: is empty; record the camera's topics")
        path = chosen_path(bag, job)
        calibration = _calibration(bag, job.values[path])
    replay = _replay(path, json.dumps(dict(job.values[path]), sort_keys=True))
    replay.configure({**job.values[path], **calibration})
    result = {"name": name, "key": key, "sha256": sha256, "path": path,
              "calibration": calibration, "model_id": replay.model_id,
              **_scored(job, name, bag_path, replay, target)}
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    part.write_text(json_text(result), encoding="utf-8")
    part.replace(target)
    written = finished(target)
    assert written is not None
    return written


def finished(target: Path) -> dict[str, Any] | None:
    """What `evaluate_bag` wrote, null as NaN; None where there is nothing whole."""
    try:
        found = json.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return _with_nan(found) if isinstance(found, dict) and "key" in found else None


def json_text(content: Any) -> str:
    """JSON with every digit, null where a number is not finite, keys in order."""
    return json.dumps(_without_nan(content), indent=1, sort_keys=True, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_nan(entry) for entry in value]
    return math.nan if value is None else value


def chosen_path(bag: BagReader, job: Job) -> str:
    """Which path an open bag is for.

    Raises:
        BagError: for none, or its topics have other types.
    """
    recorded = {summary.name: summary.type_name for summary in bag.topics if summary.message_count}
    views = {path: [names.resolve(job.namespace, topic) for topic in topics] for path, topics in (
        ("dual_pixel", (names.LEFT_IMAGE, PACKED_IMAGE)), ("focus_sweep", (names.SWEEP_IMAGE,)))}
    for path, topics in views.items():
        if job.path not in ("auto", path):
            continue
        for topic in topics:
            if topic not in recorded:
                continue
            if recorded[topic] != "sensor_msgs/msg/Image":
                raise BagError(f"bag {bag.path}: {topic} is {recorded[topic]}, must be "
                               "sensor_msgs/msg/Image; remap what was recorded")
            return path
    wanted = [topic for path, topics in views.items() if job.path in ("auto", path)
              for topic in topics]
    raise BagError(f"bag {bag.path}: has none of {', '.join(wanted)}, only "
                   f"{', '.join(sorted(recorded)) or 'no messages'}; set --namespace or record "
                   "the camera")


def _calibration(bag: BagReader, values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that the bag's custom data tells and the user does not: those that no message has.

    Raises:
        BagError: what it tells is no such value.
    """
    from depth_fusion_ros.ros.parameter_tables import DUAL_PIXEL

    if "lens.kappa" not in values:
        return {}
    told = {"lens.kappa": ("kappa", float), "dp.parallax_axis": ("parallax_axis", str)}
    found: dict[str, Any] = {}
    for name, (key, kind) in told.items():
        text = bag.metadata.get(key, "")
        if not text or values[name] != DUAL_PIXEL.rows[name].default:
            continue
        try:
            found[name] = kind(text)
        except ValueError:
            raise BagError(f"bag {bag.path}: custom data {key} = {text!r}: must be a number; "
                           f"correct it, or set {name}") from None
    return found


@lru_cache(maxsize=1)
def _code_sha256() -> str:
    """Hash of this package's sources: an edited checkout has the version it had before."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=2)
def _replay(path: str, values: str) -> OfflineReplay:
    """One engine for all bags of a process."""
    from depth_fusion_ros.ros.offline import OfflineReplay

    return OfflineReplay(path, json.loads(values))


def _scored(job: Job, name: str, bag_path: Path, replay: OfflineReplay, target: Path
            ) -> dict[str, Any]:
    from depth_fusion_ros.evaluation.metrics import percentiles_ms
    from depth_fusion_ros.evaluation.replay_scores import frame_row, summarise
    from depth_fusion_ros.ros.navigation_parameter_rows import cloud_options

    rows: list[Row] = []
    times_ms: list[float] = []
    counts = {"scored": 0, "without_reference": 0, "without_metric_depth": 0}
    pictures = _Extremes()
    with ExitStack() as open_bags:
        bag = open_bags.enter_context(BagReader(bag_path))
        reference = _reference(job, open_bags.enter_context(BagReader(bag_path)))
        for frame in replay.frames(bag, job.namespace):
            estimate = frame.estimate
            times_ms.append(frame.estimate_ms)
            if not estimate.scale_state.is_metric:
                counts["without_metric_depth"] += 1
                continue
            truth = reference.at(frame.stamp_ns, estimate)
            if truth is None:
                counts["without_reference"] += 1
                continue
            row = frame_row(estimate, truth, min_m=job.min_m, max_m=job.max_m,
                            clouds=cloud_options(job.values[replay.path]))
            if math.isnan(row["metrics"]["coverage"]):
                counts["without_reference"] += 1
                continue
            counts["scored"] += 1
            rows.append(row)
            pictures.offer(row["metrics"]["abs_rel"], frame, truth)
    totals = replay.accounts.totals()
    if not rows:
        raise BagError(f"bag {bag_path}: {_why_nothing(counts, totals, replay)}")
    if job.pictures:
        pictures.draw(target.with_suffix(".png"), name)
    return {"sets": {"received": totals.received, "estimated": totals.estimated,
                     "dropped": dict(sorted(totals.drops.items())), **counts},
            "why_dropped": dict(sorted(replay.why_dropped.items())),
            "summary": summarise(rows), "rows": rows, "estimate_ms": percentiles_ms(times_ms)}


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
