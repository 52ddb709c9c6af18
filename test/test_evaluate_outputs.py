"""What `depth-fusion evaluate` gives beside errors: costmap figures and a Rerun file per bag."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from bag_scenes import PERIOD_NS
from wall_bags import CLOSED, evaluate, report, wall, write_walls

from depth_fusion_ros.bags.images import header
from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.typestore import message_class
from depth_fusion_ros.bags.writer import DualPixelBagWriter
from depth_fusion_ros.cli import evaluate as command
from depth_fusion_ros.cli import evaluate_bag
from depth_fusion_ros.cli.evaluate import frames_of_each
from depth_fusion_ros.estimation.estimate import DepthEstimate, ScaleState
from depth_fusion_ros.evaluation.navigation_counts import NavigationClouds
from depth_fusion_ros.evaluation.replay_rerun import MOST_POINTS, RerunFrames, rerun_frame
from depth_fusion_ros.evaluation.rerun_file import rerun_is_installed
from depth_fusion_ros.optics.intrinsics import Intrinsics
from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from depth_fusion_ros.ros.camera_poses import CameraPoses
from depth_fusion_ros.ros.parameter_tables import DUAL_PIXEL
from depth_fusion_ros.ros.parameter_values import parameter_values

pytestmark = [pytest.mark.ros, pytest.mark.offline]
NO_RERUN = ("--rerun-frames", "0")
OPTICAL = "camera_rgb_optical_frame"
with_rerun = pytest.mark.skipif(not rerun_is_installed(), reason="rerun-sdk is not installed")


def placed(path: Path, *links: tuple[str, str, float, float], stamps: tuple[int, ...] = (0,),
           distances_m: tuple[float, ...] = (1.0, 1.0)) -> Path:
    """A bag of walls with /tf of links: parent, child, x at the first stamp, z."""
    parts = {name: message_class(f"geometry_msgs/msg/{name}")
             for name in ("TransformStamped", "Transform", "Vector3", "Quaternion")}
    with DualPixelBagWriter(path) as bag:
        for parent, child, x, z in links:
            for index in stamps:
                stamp = bag.start_ns + index * PERIOD_NS
                message = message_class("tf2_msgs/msg/TFMessage")(transforms=[
                    parts["TransformStamped"](
                        header=header(stamp, parent), child_frame_id=child,
                        transform=parts["Transform"](
                            translation=parts["Vector3"](x=x + 0.1 * index, y=0.0, z=z),
                            rotation=parts["Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)))])
                bag.write_message("/tf", "tf2_msgs/msg/TFMessage", message, stamp)
        for index, distance_m in enumerate(distances_m):
            bag.write_frame(wall(distance_m, index), bag.start_ns + index * PERIOD_NS)
    return path


def poses(path: Path, *assignments: str) -> tuple[CameraPoses, int]:
    """Poses of a bag's camera, and the stamp of its first frame."""
    with BagReader(path) as bag:
        values = parameter_values(DUAL_PIXEL, (), list(assignments))
        return CameraPoses(bag, values), next(bag.frames()).stamp_ns


def test_a_wall_that_steps_back_is_marked_and_cleared_in_the_report(tmp_path: Path) -> None:
    bag = write_walls(tmp_path / "steps", (0.8, 0.8, 1.5, 1.5, 1.5))
    code, text = evaluate(bag, "--out", tmp_path / "out", *CLOSED, *NO_RERUN)
    assert code == 0, text
    found = report(tmp_path / "out")
    figures = found["bags"][0]["costmap"]
    assert figures["updates"] == figures["with_reference"] == 5 and figures["outside"] == 0
    assert figures["mark_updates_median"] == 1 and figures["mark_cells"] > 0
    assert figures["clear_updates_median"] == 1 and figures["clear_cells"] > 0
    assert 0 <= figures["missed_share"] < 0.5 and figures["open_cells"] > 20
    assert "0.3 m above the floor (assumed" in figures["frame"]
    assert found["costmap"]["mark_cells"] == figures["mark_cells"]
    counts = json.loads((tmp_path / "out" / "bags" / "steps.json").read_text())["costmap"]["counts"]
    assert sum(counts["mark"]["updates"].values()) == figures["mark_cells"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The costmap" in page and "(assumed" in page
    assert "costmap against the one of the reference" in text and "(assumed" in text


def test_one_frame_gives_no_times_and_says_why(tmp_path: Path) -> None:
    bag = write_walls(tmp_path / "one", (1.0,))
    code, text = evaluate(bag, "--out", tmp_path / "out", *CLOSED, *NO_RERUN)
    figures = report(tmp_path / "out")["costmap"]
    assert code == 0 and figures["mark_updates_median"] is None
    assert "one frame" in figures["why"]["mark"] and "mark: one frame" in text
    assert figures["false_share"] is not None


def test_the_costmap_of_a_user_is_used_and_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    bag = write_walls(tmp_path / "bag", (1.0, 1.0))
    shipped = (Path(__file__).resolve().parents[1] / "config/nav2/voxel_layer.yaml").read_text()
    near = tmp_path / "near.yaml"
    near.write_text(shipped.replace("obstacle_max_range: 2.5", "obstacle_max_range: 0.7"))
    code, text = evaluate(bag, "--out", tmp_path / "out", *CLOSED, *NO_RERUN, "--costmap", near)
    assert code == 0, text
    assert report(tmp_path / "out")["costmap"]["surface_cells"] == 0
    other = tmp_path / "other.yaml"
    for content, said in ((b"amcl: {}\n", "has no local_costmap"), (b"{a: [", "is no YAML"),
                          (b"\xff\xfe\x00", "is no YAML"), (None, "cannot be read")):
        other.unlink(missing_ok=True)
        if content is not None:
            other.write_bytes(content)
        code, text = evaluate(bag, "--out", tmp_path / "out", *CLOSED, "--costmap", other)
        assert code == 2 and said in text and "other.yaml" in text


def test_the_camera_is_placed_by_tf_in_odom_whatever_else_is_there(tmp_path: Path) -> None:
    path = placed(tmp_path / "bag", ("map", "robot/odom", 5.0, 0.0),
                  ("robot/odom", "base_link", 1.0, 0.1), ("base_link", "camera_link", 0.0, 0.4),
                  stamps=(0, 1))
    found, stamp_ns = poses(path)
    pose = found.at(stamp_ns, f"/{OPTICAL}")
    assert found.frame == "robot/odom"
    np.testing.assert_allclose(pose[:3, 3], (1.0, 0.0, 0.5), atol=1e-9)
    np.testing.assert_allclose(pose[:3, 2], (1.0, 0.0, 0.0), atol=1e-9)  # it looks along x
    later = found.at(stamp_ns + PERIOD_NS, OPTICAL)
    np.testing.assert_allclose(later[:3, 3], (1.2, 0.0, 0.5), atol=1e-9)
    assert found.at(stamp_ns + 100 * PERIOD_NS, OPTICAL) is None, "tf has ended"


def test_without_tf_the_camera_stands_level_at_the_height_that_the_node_is_told(
        tmp_path: Path) -> None:
    path = write_walls(tmp_path / "bag", (1.0,))
    found, stamp_ns = poses(path, "floor.camera_height_m:=0.45")
    assert found.at(stamp_ns, OPTICAL)[2, 3] == 0.45
    assert found.frame == "level, camera at rest 0.45 m above the floor"
    assumed, _ = poses(path)
    assert assumed.at(stamp_ns, OPTICAL)[2, 3] == 0.3 and "assumed" in assumed.frame


def test_a_bag_whose_tf_leads_to_odom_is_scored_there_and_gaps_are_counted(tmp_path: Path) -> None:
    path = placed(tmp_path / "bag", ("odom", "camera_link", 0.0, 0.35), stamps=(0, 1),
                  distances_m=(1.0,) * 4)
    code, text = evaluate(path, "--out", tmp_path / "out", *CLOSED, *NO_RERUN)
    assert code == 0, text
    figures = report(tmp_path / "out")["bags"][0]["costmap"]
    assert figures["frame"] == "odom"
    assert figures["updates"] == 3 and figures["without_pose"] == 1  # 0.1 s after its end


def chunks(path: Path) -> dict[str, list[tuple[int, set[str], list[str]]]]:
    """Entity → rows, components and timelines of its chunks."""
    reading = pytest.importorskip("rerun.chunk")
    found: dict[str, list[tuple[int, set[str], list[str]]]] = {}
    for chunk in reading.RrdReader(str(path)).stream().to_chunks():
        names = set(chunk.to_record_batch().schema.names)
        found.setdefault(chunk.entity_path, []).append(
            (chunk.num_rows, names, list(chunk.timeline_names)))
    return found


@with_rerun
def test_the_rerun_file_of_a_bag_holds_its_pictures_clouds_and_numbers(tmp_path: Path) -> None:
    bag = write_walls(tmp_path / "walls", (0.8, 1.0, 1.2, 1.4, 1.5))
    code, text = evaluate(bag, "--out", tmp_path / "out", *CLOSED, "--rerun-frames", 3)
    assert code == 0, text
    found = chunks(tmp_path / "out" / "bags" / "walls.rrd")
    rows = {name: sum(part[0] for part in parts if "stamp" in part[2])
            for name, parts in found.items()}
    for name in ("image/rgb", "image/depth", "image/reference", "image", "obstacles", "clearing"):
        assert rows[f"/world/camera/{name}"] == 3, name
    for name in ("sigma", "error", "provenance"):
        assert rows[f"/maps/{name}"] == 3, name
    assert rows["/numbers/abs_rel"] == rows["/numbers/estimate_ms"] == 5
    kinds = {name: set().union(*(part[1] for part in parts)) for name, parts in found.items()}
    assert "Pinhole:image_from_camera" in kinds["/world/camera/image"]
    assert "AnnotationContext:context" in kinds["/maps/provenance"]
    assert "SegmentationImage:buffer" in kinds["/maps/provenance"]
    assert "EncodedImage:blob" in kinds["/world/camera/image/rgb"]
    assert "bags/walls.rrd" in (tmp_path / "out" / "report.html").read_text()


@with_rerun
def test_a_finished_bag_keeps_its_rerun_file_and_one_that_lost_it_gets_it_again(
        tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_walls(tmp_path / "bags" / name, (0.8, 1.2), seed=ord(name))
    one, two = tmp_path / "one", tmp_path / "two"
    assert evaluate(tmp_path / "bags", "--out", one, *CLOSED)[0] == 0
    assert evaluate(tmp_path / "bags", "--out", two, *CLOSED, "--workers", 2)[0] == 0
    assert (one / "report.json").read_bytes() == (two / "report.json").read_bytes()
    kept = (one / "bags" / "a.rrd").stat().st_mtime_ns
    (one / "bags" / "b.rrd").unlink()
    (one / "report.json").unlink()
    assert evaluate(tmp_path / "bags", "--out", one, *CLOSED)[0] == 0
    assert (one / "bags" / "a.rrd").stat().st_mtime_ns == kept
    assert (one / "bags" / "b.rrd").is_file() and not list((one / "bags").glob("*.part"))
    assert (one / "report.json").read_bytes() == (two / "report.json").read_bytes()
    for name in ("a", "b"):
        assert without_times(one, name) == without_times(two, name)
    assert evaluate(tmp_path / "bags", "--out", one, *CLOSED, *NO_RERUN)[0] == 0
    assert (one / "bags" / "a.rrd").stat().st_mtime_ns == kept, "nothing is scored again"
    changed = (*CLOSED, *NO_RERUN, "--max-m", 1.0)
    assert evaluate(tmp_path / "bags", "--out", one, *changed)[0] == 0
    assert not list((one / "bags").glob("*.rrd")), "old pictures beside new numbers"


def without_times(out: Path, name: str) -> dict:
    found = json.loads((out / "bags" / f"{name}.json").read_text())
    return {key: value for key, value in found.items() if key != "estimate_ms"}


def test_without_rerun_one_line_says_how_to_get_the_file(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (command, evaluate_bag):
        monkeypatch.setattr(module, "rerun_is_installed", lambda: False)
    bag = write_walls(tmp_path / "walls", (1.0,))
    code, text = evaluate(bag, "--out", tmp_path / "out", *CLOSED)
    assert code == 0 and text.count("no Rerun files are written") == 1
    assert "pip install -r requirements/rerun.txt" in text
    assert not list((tmp_path / "out" / "bags").glob("*.rrd"))
    assert "Rerun" not in evaluate(bag, "--out", tmp_path / "out", *CLOSED, *NO_RERUN)[1]


def test_many_bags_get_fewer_frames_each_but_one_at_least() -> None:
    assert [frames_of_each(8, bags) for bags in (1, 50, 100, 400, 5000)] == [8, 8, 4, 1, 1]
    assert frames_of_each(0, 10) == 0


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 17, 100])
def test_the_frames_kept_are_few_and_spread_over_the_bag(frames: int) -> None:
    kept = RerunFrames(most=4)
    for number in range(frames):
        wanted = kept.wants_next()
        kept.offer(small(number) if wanted else None)
    stamps = [frame.stamp_ns for frame in kept.chosen()]
    assert len(stamps) == min(4, frames) and stamps == sorted(set(stamps))
    assert stamps[0] == 0 and stamps[-1] >= 0.7 * (frames - 1)


def small(stamp_ns: int, width_px: int = 4, height_px: int = 3, points: int = 2):
    shape = (height_px, width_px)
    depth = np.full(shape, 2.0, np.float32)
    depth[0, 0] = math.nan
    estimate = DepthEstimate(
        depth, depth / 10, np.ones(shape, np.uint8), depth, depth, stamp_ns, "optical",
        Intrinsics(100.0, 100.0, width_px / 2, height_px / 2, width_px, height_px),
        ScaleState.ABSOLUTE, "model")
    cloud = np.arange(4 * points, dtype=np.float32).reshape(-1, 4)
    return rerun_frame(estimate, np.zeros((*shape, 3), np.uint8), np.full(shape, 2.5, np.float32),
                       NavigationClouds(cloud, cloud[:, :3], False), None)


def test_large_pictures_and_clouds_are_thinned_and_the_camera_with_them() -> None:
    frame = small(0, 1280, 800, points=3 * MOST_POINTS)
    assert frame.labels.shape == (200, 320)
    assert all(picture.shape[:2] == (200, 320) for picture in frame.pictures.values())
    assert frame.intrinsics == Intrinsics(25.0, 25.0, 160.0, 100.0, 320, 200)
    assert all(len(points) <= MOST_POINTS and points.shape[1] == 3
               for points in frame.clouds.values())
    error = frame.pictures["maps/error"]
    assert np.isnan(error[0, 0]) and error[1, 1] == 0.5
