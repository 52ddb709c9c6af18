"""One bag of `depth-fusion evaluate`: replayed, scored, drawn. Runs in any process."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depth_fusion_ros.bags import topics as names
from depth_fusion_ros.bags.find import bag_sha256
from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.evaluation.rerun_file import rerun_is_installed

if TYPE_CHECKING:
    from depth_fusion_ros.ros.offline import OfflineReplay

SCHEMA = 2
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
        costmap: dict under ros__parameters of a Nav2 costmap.
        pictures: whether each bag's best, typical and worst frame are drawn.
        rerun_frames: of each bag in its Rerun file; 0 = no file.
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
    costmap: Mapping[str, Any] = field(default_factory=dict)
    pictures: bool = True
    rerun_frames: int = 0

    def key(self, sha256: str) -> str:
        """What the result of a bag depends on, as one number; its Rerun file is beside it."""
        what = asdict(self)
        del what["rerun_frames"]
        text = json.dumps([SCHEMA, _code_sha256(), sha256, what], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def evaluate_bag(job: Job, name: str, bag_path: Path, folder: Path) -> dict[str, Any]:
    """Score one bag, or return what was found before with the same bag, job and code.

    Writes `folder`/NAME.json, last and at once, so that it is there only when it is whole, and
    NAME.png: the best, a typical and the worst frame, and NAME.rrd where Rerun is installed. A bag
    whose NAME.rrd is wanted and not there is scored again.

    Raises:
        BagError: the bag cannot be used; one sentence.
    """
    target = folder / f"{name.replace('/', '__')}.json"
    sha256 = bag_sha256(bag_path)
    key = job.key(sha256)
    recording = target.with_suffix(".rrd")
    wants_recording = bool(job.rerun_frames) and rerun_is_installed()
    if (before := finished(target)) is not None and before["key"] == key and (
            recording.is_file() or not wants_recording):
        return before
    target.unlink(missing_ok=True)  # or a new recording could stand beside old numbers
    recording.unlink(missing_ok=True)
    with BagReader(bag_path) as bag:
        if not bag.message_count:
            raise BagError(f"bag {bag_path}: is empty; record the camera's topics")
        path = chosen_path(bag, job)
        calibration = _calibration(bag, job.values[path])
    replay = _replay(path, json.dumps(dict(job.values[path]), sort_keys=True))
    replay.configure({**job.values[path], **calibration})
    from depth_fusion_ros.cli.evaluate_frames import scored

    result = {"name": name, "key": key, "sha256": sha256, "path": path,
              "calibration": calibration, "model_id": replay.model_id,
              **scored(job, name, bag_path, replay, target, wants_recording)}
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
