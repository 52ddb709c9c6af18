"""Saved frames as files: what is refused, with which sentence, and how two results are compared."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from bag_scenes import LENS, small_frame
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from depth_fusion_ros.cli.main import app
from depth_fusion_ros.estimation.scale_anchor import AnchorFit
from depth_fusion_ros.nodes.synthetic_camera import frame_to_messages
from depth_fusion_ros.ros import dual_pixel_frames as frames
from depth_fusion_ros.ros.depth_node import Result
from depth_fusion_ros.ros.frame_bundle import BundleError, read_bundle, write_bundle
from depth_fusion_ros.ros.frame_replay import ReplayedFrame, compare, replay_frame, replay_values
from depth_fusion_ros.ros.frame_saver import FrameSaver
from depth_fusion_ros.ros.lens import lens_to_state
from depth_fusion_ros.ros.parameter_tables import DUAL_PIXEL
from depth_fusion_ros.ros.parameter_values import parameter_values
from depth_fusion_ros.ros.synchronisation import InputSet

STAMP_NS = 1_700_000_000_123_456_789
ANCHOR = AnchorFit(1.1, 0.2, 0.01, 4, True)


class Node:
    """What a saver sees of a node; its sets are estimated by the closed form."""

    def __init__(self, folder: Path, *assignments: str) -> None:
        self.values = parameter_values(DUAL_PIXEL, (), [
            "model.path:=closed_form", "model.threads:=1", "model.warmup_iterations:=0",
            f"save.folder:={folder}", *assignments])
        self.overload = SimpleNamespace(inference_divisor=2)
        self.anchor: AnchorFit | None = None
        self.saver = FrameSaver(self)
        backend = frames.open_backend(self.values)
        self.saver.loaded(backend)
        self.estimator = frames.make_estimator(backend, self.values)
        self.estimator.options = frames.estimator_options(self.values, 2)

    def create_service(self, kind: type, name: str, callback: Any) -> None:
        self.save = lambda: callback(Trigger.Request(), Trigger.Response())

    def get_fully_qualified_name(self) -> str:
        return "/front/dual_pixel_depth"

    def versions(self) -> dict[str, str]:
        return {"depth_fusion_ros": "0.0.1"}

    def process(self, item: InputSet) -> Result:
        read = frames.read_set(item.messages, item.stamp_ns, self.values, lambda _: self.anchor)
        return Result(self.estimator.estimate(read.frame), read.rgb, read.info, 0.0, 2,
                      read.frame.anchor)

    def work(self, **changes: Any) -> InputSet:
        scene: Any = small_frame(3, width_px=64, height_px=48)
        messages = frame_to_messages(scene, "optical", self.values["dp.layout"], "mono16")
        messages.pop("ground_truth/depth")
        state = lens_to_state(LENS, Header(frame_id="optical"))
        for name, value in changes.items():
            setattr(state, name, value)
        messages[frames.LENS] = state
        # Fields of 32 bits get rounded on the way.
        sent = {topic: deserialize_message(serialize_message(message), type(message))
                for topic, message in messages.items()}
        item = InputSet(sent, STAMP_NS, 0, 0)
        self.saver.watched(self.process, item)
        return item


@pytest.fixture
def saved(tmp_path) -> Path:
    node = Node(tmp_path)
    node.work()
    return Path(node.save().message)


def replay(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["replay-frame", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, " ".join(result.output.split())


def rewritten(path: Path, change: Any) -> Path:
    """The file with another header."""
    other = path.with_name("other.npz")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "frame.json":
                header = json.loads(data)
                change(header)
                data = json.dumps(header).encode()
            new.writestr(name, data)
    return other


def test_the_file_tells_node_stamp_model_versions_and_opens_with_numpy(saved):
    assert saved.name == "front_dual_pixel_depth_1700000000_123456789.npz"
    assert [p.name for p in saved.parent.iterdir()] == [saved.name], "nothing unfinished is left"
    header = read_bundle(saved).header
    assert (header.node, header.stamp_ns) == ("/front/dual_pixel_depth", STAMP_NS)
    assert header.model_id == "closed_form" and header.versions == {"depth_fusion_ros": "0.0.1"}
    assert header.scale_state == "ABSOLUTE" and header.inference_divisor == 2
    with np.load(saved) as arrays:
        assert arrays["outputs/depth_m"].shape == (48, 64)


def test_the_overload_step_holds_again_and_other_versions_are_told(saved):
    code, output = replay(saved)
    assert code == 0, output
    assert "same: identical" in output and "half the columns and rows" in output
    assert "depth_fusion_ros: 0.0.1 in the file" in output


@pytest.mark.parametrize("layout", ["side_by_side", "column_interleaved"])
def test_packed_sets_replay_to_the_same(tmp_path, layout):
    node = Node(tmp_path, f"dp.layout:={layout}", "input.use_rgb:=false")
    node.work()
    assert replay(node.save().message, "--out", tmp_path)[0] == 0
    code, output = replay(node.save().message, "-p", "dp.layout:=pair")
    assert code == 2 and "holds no dp/left/image_raw, dp/right/image_raw" in output


def test_an_anchor_that_was_used_is_used_again(tmp_path):
    node = Node(tmp_path, "anchor.enable:=true")
    node.anchor = ANCHOR
    node.work(focus_calibration=0)
    bundle = read_bundle(Path(node.save().message))
    assert bundle.header.anchor == ANCHOR and bundle.header.scale_state == "ANCHORED"
    assert replay(node.save().message)[0] == 0


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off_ends_with_2_and_a_remedy(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[:int(share * len(data))])
    code, output = replay(saved)
    assert code == 2 and "cut off or damaged; copy it again" in output


def test_damaged_bytes_never_break_the_command(saved):
    data, chance = saved.read_bytes(), np.random.default_rng(1)
    for _ in range(40):
        broken = bytearray(data)
        at = int(chance.integers(0, len(data)))
        broken[at:at + 8] = chance.bytes(8)
        saved.write_bytes(bytes(broken))
        try:
            read_bundle(saved)
        except BundleError as error:
            assert "npz" in str(error) and ";" in str(error)


@pytest.mark.parametrize(("change", "words"), [
    (lambda h: h.update(format_version=2), "format version 2, this program reads 1"),
    (lambda h: h.pop("stamp_ns"), "frame.json is not valid (stamp_ns: Field required)"),
    (lambda h: h["parameters"].update({"model.path": "/gone/net.json"}),
     "no model card at /gone/net.json; weights need their card (.json) beside them. The frame was "
     "made by closed_form: name those weights with --model"),
], ids=["other version", "damaged header", "no model"])
def test_what_cannot_be_run_ends_with_2_and_a_remedy(saved, change, words):
    code, output = replay(rewritten(saved, change))
    assert code == 2 and words in output


def test_missing_and_foreign_files_end_with_2(tmp_path):
    code, output = replay(tmp_path / "nothing.npz")
    assert code == 2 and "No such file" in output and "~/save_frame" in output
    np.savez(tmp_path / "foreign.npz", a=np.zeros(3))
    code, output = replay(tmp_path / "foreign.npz")
    assert code == 2 and "is no saved frame" in output


def test_a_bad_change_ends_with_2(saved):
    code, output = replay(saved, "-p", "depth.max_m:=0.1")
    assert code == 2 and "depth.min_m = 0.15 with depth.max_m = 0.1" in output


def test_another_model_is_told(saved):
    code, output = replay(saved, "--model", "difuse_net_s", "-p", "model.backend:=torch")
    assert code == 1 and "model: closed_form in the file, difuse_net_s@" in output


def test_parameters_of_other_versions_are_told_and_new_ones_have_defaults(saved):
    def change(header):
        header["parameters"]["old.one"] = header["parameters"].pop("depth.edge_filter_px")

    code, output = replay(rewritten(saved, change))
    assert code == 0, output
    assert "no more, left out: old.one" in output
    assert "new, at their defaults: depth.edge_filter_px" in output


def test_results_are_identical_equal_or_different(saved):
    bundle = read_bundle(saved)
    replayed = replay_frame(bundle, replay_values(bundle))
    assert compare(bundle, replayed).verdict == "identical"
    estimate = replayed.estimate
    assert estimate is not None

    def with_depth(depth: Any) -> ReplayedFrame:
        return replace(replayed, estimate=replace(estimate, depth_m=depth))

    near = compare(bundle, with_depth(estimate.depth_m * np.float32(1 + 2e-6)))
    assert near.verdict == "equal" and 0 < near.maps[0].largest < 1e-5
    beyond = compare(bundle, with_depth(np.full_like(estimate.depth_m, np.inf)))
    assert np.isnan(beyond.maps[0].largest) and beyond.maps[0].share > 0.1
    one = estimate.depth_m.copy()
    one[np.isfinite(one).nonzero()[0][0], np.isfinite(one).nonzero()[1][0]] = np.nan
    far = compare(bundle, with_depth(one))
    assert far.verdict == "different" and far.maps[0].share == pytest.approx(1 / one.size)
    assert compare(bundle, with_depth(one[1:])).reason == "the depth had 64x48 px and has 64x47 now"


def test_only_the_newest_set_is_kept_and_forgetting_drops_it(tmp_path):
    import gc
    import weakref

    node = Node(tmp_path)
    first, second = weakref.ref(node.work()), weakref.ref(node.work())
    gc.collect()
    assert first() is None and second() is not None
    node.saver.forget()
    gc.collect()
    assert second() is None
    answer = node.save()
    assert not answer.success and "no set was worked on" in answer.message


def test_a_set_whose_parameters_changed_under_it_is_not_kept(tmp_path):
    node = Node(tmp_path)
    process = node.process

    def changing(item: InputSet) -> Result:
        node.values = dict(node.values)
        return process(item)

    node.process = changing  # type: ignore[method-assign]
    node.work()
    assert not node.save().success


def test_a_write_that_fails_leaves_nothing_behind(saved, monkeypatch):
    bundle = read_bundle(saved)
    target = saved.with_name("new.npz")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match="No space"):
        write_bundle(target, bundle)
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
