"""`depth-fusion evaluate`: a bag in, an answer out; and what it says of bags it cannot use."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bag_scenes import PERIOD_NS
from sweep_bags import write_small_sweeps
from wall_bags import CLOSED, HEIGHT_PX, WIDTH_PX, evaluate, report, wall, write_walls

from depth_fusion_ros.bags.images import header
from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.typestore import message_class
from depth_fusion_ros.bags.writer import DualPixelBagWriter
from depth_fusion_ros.estimation.estimate import Provenance
from depth_fusion_ros.evaluation.metrics import average_metrics, depth_metrics
from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from depth_fusion_ros.ros.offline import OfflineReplay
from depth_fusion_ros.ros.parameter_tables import DUAL_PIXEL
from depth_fusion_ros.ros.parameter_values import parameter_values

pytestmark = [pytest.mark.ros, pytest.mark.offline]
CLOUD = "sensor_msgs/msg/PointCloud2"


def test_the_report_has_the_metrics_of_what_the_estimator_gives(tmp_path: Path) -> None:
    bag_path = write_walls(tmp_path / "walls")
    code, text = evaluate(bag_path, "--out", tmp_path / "out", "--model", "closed_form")
    assert code == 0, text
    found = report(tmp_path / "out")
    replay = OfflineReplay("dual_pixel", parameter_values(
        DUAL_PIXEL, (), ["model.path:=closed_form", "model.warmup_iterations:=0"]))
    rows = []
    with BagReader(bag_path) as bag, BagReader(bag_path) as truths:
        for frame, record in zip(replay.frames(bag), truths.frames(), strict=True):
            rows.append(depth_metrics(frame.estimate.depth_m, record.truth.array,
                                      sigma_m=frame.estimate.sigma_m, min_m=0.15, max_m=8.0))
    expected = average_metrics(rows)
    assert expected["abs_rel"] < 0.05, "closed form matches a plain wall"
    for key, value in expected.items():
        if not math.isnan(value):
            assert found["summary"]["metrics"][key] == value, key
    assert found["sets"]["received"] == found["sets"]["scored"] == 3
    assert found["bags"][0]["sets"]["dropped"] == {}
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5 and "http" not in page
    assert (tmp_path / "out" / "bags" / "walls.png").is_file()
    assert set(json.loads((tmp_path / "out" / "timing.json").read_text())) == {
        "wall_s", "hardware", "estimate_ms"}


def test_a_plane_is_a_reference_where_the_board_is(tmp_path: Path) -> None:
    bag_path = write_walls(tmp_path / "board", (1.0, 1.0), truth=False)
    options = ("--reference", "plane", "--plane-distance-m", "1.0", *CLOSED)
    code, text = evaluate(bag_path, "--out", tmp_path / "a", *options)
    assert code == 0, text
    whole = report(tmp_path / "a")["summary"]
    assert whole["metrics"]["abs_rel"] < 0.05
    evaluate(bag_path, "--out", tmp_path / "b", *options, "--plane-region", "10,10,20,15")
    part = report(tmp_path / "b")["summary"]
    assert part["ranges"]["pixels_1_2_m"] == 300
    assert whole["ranges"]["pixels_1_2_m"] == WIDTH_PX * HEIGHT_PX
    evaluate(bag_path, "--out", tmp_path / "c", *options[:3], "1.1", *CLOSED)
    assert report(tmp_path / "c")["summary"]["metrics"]["bias_rel"] == pytest.approx(
        -1 / 11, abs=0.03)


def test_a_lidar_beside_the_camera_is_a_reference_through_tf(tmp_path: Path) -> None:
    """The LiDAR's x axis looks ahead and it sits 0.2 m right of the camera, 0.1 m above."""
    path = tmp_path / "lidar"
    with DualPixelBagWriter(path) as bag:
        for index in range(2):
            stamp = bag.start_ns + index * PERIOD_NS
            bag.write_frame(replace(wall(1.0, index), depth_m=None), stamp)
            across, up = np.meshgrid(np.linspace(-0.1, 0.3, 60), np.linspace(-0.2, 0.1, 50))
            points = np.stack([np.full(across.shape, 1.0), across, up], -1).reshape(-1, 3)
            bag.write_message("/points", CLOUD, cloud(points, stamp), stamp)
        bag.write_message("/tf_static", "tf2_msgs/msg/TFMessage", lidar_place(bag.start_ns),
                          bag.start_ns)
    code, text = evaluate(path, "--reference", "lidar", "--out", tmp_path / "out", *CLOSED)
    assert code == 0, text
    summary = report(tmp_path / "out")["summary"]
    assert summary["frames"] == 2 and summary["metrics"]["abs_rel"] < 0.05
    assert 200 < summary["ranges"]["pixels_1_2_m"] + summary["ranges"]["pixels_0.5_1_m"] < 3000
    found = report(tmp_path / "out")["costmap"]
    assert found["surface_cells"] > 0 and found["missed_share"] is not None


def cloud(points: np.ndarray, stamp_ns: int):
    field, float32 = message_class("sensor_msgs/msg/PointField"), 7
    return message_class("sensor_msgs/msg/PointCloud2")(
        header=header(stamp_ns, "lidar"), height=1, width=len(points),
        fields=[field(name=n, offset=4 * i, datatype=float32, count=1)
                for i, n in enumerate("xyz")],
        is_bigendian=False, point_step=12, row_step=12 * len(points),
        data=np.frombuffer(points.astype("<f4").tobytes(), np.uint8), is_dense=True)


def lidar_place(stamp_ns: int):
    """camera_link → lidar: same axes (x ahead, y left, z up)."""
    place = message_class("geometry_msgs/msg/TransformStamped")(
        header=header(stamp_ns, "camera_link"), child_frame_id="lidar",
        transform=message_class("geometry_msgs/msg/Transform")(
            translation=message_class("geometry_msgs/msg/Vector3")(x=0.0, y=-0.2, z=0.1),
            rotation=message_class("geometry_msgs/msg/Quaternion")(x=0.0, y=0.0, z=0.0, w=1.0)))
    return message_class("tf2_msgs/msg/TFMessage")(transforms=[place])


def test_a_sweep_bag_is_scored_by_the_sweep_path(tmp_path: Path) -> None:
    write_small_sweeps(tmp_path / "sweeps", 2, times=2)
    code, text = evaluate(tmp_path / "sweeps", "--out", tmp_path / "out", *CLOSED,
                          "-p", "depth.max_sigma_ratio:=10.0")
    assert code == 0, text
    assert report(tmp_path / "out")["bags"][0]["path"] == "focus_sweep"
    assert report(tmp_path / "out")["sets"]["received"] == 2


def test_several_processes_and_a_second_start_give_the_same_digits(tmp_path: Path) -> None:
    for index in range(3):
        write_walls(tmp_path / "bags" / f"b{index}", (0.8, 1.2), seed=10 * index)
    one, two = tmp_path / "one", tmp_path / "two"
    assert evaluate(tmp_path / "bags", "--out", one, *CLOSED)[0] == 0
    assert evaluate(tmp_path / "bags", "--out", two, *CLOSED, "--workers", 2)[0] == 0
    assert (one / "report.json").read_text() == (two / "report.json").read_text()
    # As after an interruption: one bag is done, one was cut off while it was written.
    (two / "bags" / "b1.json").unlink()
    (two / "bags" / "b2.json").write_text('{"key": "half')
    kept = (two / "bags" / "b0.json").stat().st_mtime_ns
    (two / "report.json").unlink()
    assert evaluate(tmp_path / "bags", "--out", two, *CLOSED)[0] == 0
    assert (one / "report.json").read_text() == (two / "report.json").read_text()
    assert (two / "bags" / "b0.json").stat().st_mtime_ns == kept
    assert evaluate(tmp_path / "bags", "--out", two, *CLOSED, "--max-m", "1.0")[0] == 0
    assert report(two)["summary"] != report(one)["summary"], "other settings are not taken for done"


def test_a_broken_bag_in_a_folder_is_named_and_the_rest_scored(tmp_path: Path) -> None:
    bags = tmp_path / "bags"
    write_walls(bags / "good", (1.0,))
    write_walls(bags / "cut", (1.0,))
    data = next((bags / "cut").glob("*.mcap"))
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    write_walls(bags / "truthless", (1.0,), truth=False)
    code, text = evaluate(bags, "--out", tmp_path / "out", *CLOSED)
    assert code == 1
    found = report(tmp_path / "out")
    assert [bag["name"] for bag in found["bags"]] == ["good"]
    why = {entry["name"]: entry["why"] for entry in found["failed"]}
    assert "truncated" in why["cut"] and "not recorded" in why["truthless"]
    assert "truncated" in text and "truthless" in (tmp_path / "out" / "report.html").read_text()


def without(path: Path, source: Path, *topics: str, retype: str = "") -> Path:
    """Copy a bag but for some topics; `retype` is written as a string message instead."""
    with BagReader(source) as bag, DualPixelBagWriter(path) as copy:
        types = {summary.name: summary.type_name for summary in bag.topics}
        for topic, time_ns, message in bag.messages():
            if topic == retype:
                types[topic] = "std_msgs/msg/String"
                message = message_class(types[topic])(data="no image")
            if topic not in topics:
                copy.write_message(topic, types[topic], message, time_ns)
    return path


@pytest.mark.parametrize(("case", "sentence"), [
    ("truncated", "truncated, damaged or no rosbag2"),
    ("empty", "is empty"),
    ("wrong_type", r"left/image_raw is std_msgs/msg/String, must be sensor_msgs/msg/Image"),
    ("no_lens", "no depth is metric: the lens states are missing"),
    ("no_reference", "reference topic /camera/ground_truth/depth is not recorded"),
    ("no_overlap", "none of 1 depth images has a reference"),
    ("no_tf", "nothing leads from lidar to camera_rgb_optical_frame"),
    ("no_model", "no_such_network"),
    ("no_parameter", "has no such parameter"),
    ("no_bag", "does not exist"),
    ("other_namespace", "has none of /robot/dp/left/image_raw"),
])
def test_what_cannot_be_scored_is_said_in_a_sentence_and_nothing_is_overwritten(
        tmp_path: Path, case: str, sentence: str) -> None:
    source = write_walls(tmp_path / "source", (1.0,), truth=case != "no_reference")
    path, more = tmp_path / "bag", list(CLOSED)
    if case == "truncated":
        shutil.copytree(source, path)
        data = next(path.glob("*.mcap"))
        data.write_bytes(data.read_bytes()[:-200])
    elif case == "empty":
        with DualPixelBagWriter(path):
            pass
    elif case == "wrong_type":
        without(path, source, retype="/camera/dp/left/image_raw")
    elif case == "no_lens":
        without(path, source, "/camera/lens_state")
    elif case == "no_overlap":
        with BagReader(source) as bag, DualPixelBagWriter(path) as copy:
            types = {summary.name: summary.type_name for summary in bag.topics}
            for topic, time_ns, message in bag.messages():
                if topic.endswith("ground_truth/depth"):
                    message.header.stamp.sec += 5
                copy.write_message(topic, types[topic], message, time_ns)
    elif case == "no_tf":
        with DualPixelBagWriter(path) as bag:
            bag.write_frame(wall(1.0, 0), bag.start_ns)
            bag.write_message("/points", CLOUD, cloud(np.ones((9, 3)), bag.start_ns),
                              bag.start_ns)
        more += ["--reference", "lidar"]
    else:
        path = source
    more += {"no_model": ["--model", "no_such_network"], "no_parameter": ["-p", "no.such:=1"],
             "other_namespace": ["--namespace", "/robot"]}.get(case, [])
    path = tmp_path / "nowhere" if case == "no_bag" else path
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text("from before")
    code, text = evaluate(path, "--out", out, *more)
    assert code == 2, text
    assert re.search(sentence, " ".join(text.split())), text
    assert (out / "report.json").read_text() == "from before"
    assert "Traceback" not in text


def test_a_blank_frame_is_a_drop_with_its_cause(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    with DualPixelBagWriter(path) as bag:
        for index in range(3):
            frame = wall(1.0, index)
            if index == 1:
                flat = np.full_like(frame.left, 900)
                frame = replace(frame, left=flat, right=flat)
            bag.write_frame(frame, bag.start_ns + index * PERIOD_NS)
    assert evaluate(path, "--out", tmp_path / "out", *CLOSED)[0] == 0
    found = report(tmp_path / "out")["bags"][0]
    assert found["sets"]["dropped"] == {"constant_image": 1} and found["sets"]["scored"] == 2
    assert "nothing was exposed" in found["why_dropped"]["constant_image"]
    assert set(found["summary"]["provenance"]) <= {label.name.lower() for label in Provenance}
    assert sum(found["summary"]["provenance"].values()) == pytest.approx(1)
