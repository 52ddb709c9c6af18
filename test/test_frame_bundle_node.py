"""~/save_frame of the real nodes over DDS, and `depth-fusion replay-frame` on what they wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from ros_helpers import DEPTH, REPORT, Bench, end
from std_srvs.srv import Trigger
from test_node_focus_sweep import SweepCamera

from depth_fusion_ros.cli.main import app
from depth_fusion_ros.ros.frame_bundle import read_bundle
from depth_fusion_ros.ros.messages import image_to_array

pytestmark = pytest.mark.ros


def save(bench: Bench) -> Any:
    return bench.call(Trigger, f"{bench.node_name}/save_frame", Trigger.Request())


def replay(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["replay-frame", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def dual_pixel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    with Bench() as bench, bench.node("depth.max_m:=6.0", f"save.folder:={folder}/made") as process:
        early = save(bench)
        camera = bench.camera()
        bench.wait_for(DEPTH, camera.send())
        stamp_ns = camera.send()
        depth = image_to_array(bench.wait_for(DEPTH, stamp_ns), DEPTH, ("32FC1",))
        bench.wait_for(REPORT, stamp_ns)
        answer = save(bench)
        yield bench, camera, early, answer, stamp_ns, depth
        camera.close()
        end(process)


@pytest.fixture(scope="module")
def focus_sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    with Bench() as bench, bench.node("sweep.timeout_s:=1.0", f"save.folder:={folder}",
                                      module="focus_sweep_depth") as process:
        camera = SweepCamera(bench)
        stamp_ns = camera.send()
        bench.wait_for(REPORT, stamp_ns)
        answer = save(bench)
        yield answer, stamp_ns
        camera.close()
        end(process)


def test_the_newest_set_is_saved_and_replays_to_the_same(dual_pixel):
    _, _, _, answer, stamp_ns, depth = dual_pixel
    assert answer.success, answer.message
    bundle = read_bundle(Path(answer.message))
    assert bundle.header.stamp_ns == stamp_ns
    assert bundle.header.parameters["depth.max_m"] == 6.0
    assert (bundle.outputs["depth_m"].tobytes()) == depth.tobytes()
    code, output = replay(answer.message)
    assert code == 0, output
    assert "same: identical in every pixel" in output and "note" not in output


def test_before_the_first_depth_there_is_nothing_to_save_and_the_answer_says_so(dual_pixel):
    early = dual_pixel[2]
    assert not early.success and "no set was worked on" in early.message


def test_a_changed_parameter_is_told_and_gives_another_result(dual_pixel):
    code, output = replay(dual_pixel[3].message, "-p", "depth.max_m:=0.3")
    assert code == 1, output
    assert "depth.max_m: 6.0 in the file, 0.3 here" in output and "different" in output


def test_a_folder_that_cannot_be_written_is_an_answer_and_the_node_goes_on(dual_pixel, tmp_path):
    bench, camera = dual_pixel[:2]
    (tmp_path / "file").write_text("")
    assert bench.set_parameters(save__folder=str(tmp_path / "file" / "inside"))[0]
    answer = save(bench)
    assert not answer.success and "set save.folder" in answer.message
    bench.wait_for(DEPTH, camera.send())


def test_a_set_that_fails_is_saved_too_and_fails_again(dual_pixel, tmp_path):
    bench, camera = dual_pixel[:2]
    assert bench.set_parameters(save__folder=str(tmp_path))[0]
    before = bench.counters().get("dropped.bad_encoding", 0)
    camera.send(damage=lambda m: setattr(m["dp/left/image_raw"], "encoding", "yuv422"))
    bench.wait(lambda: bench.counters_now().get("dropped.bad_encoding", 0) > before, "the drop")
    answer = save(bench)
    assert answer.success, answer.message
    code, output = replay(answer.message)
    assert code == 0, output
    assert "both times no depth: bad_encoding: dp/left/image_raw" in output


def test_a_sweep_is_saved_with_its_lens_and_replays_to_the_same(focus_sweep):
    answer, stamp_ns = focus_sweep
    assert answer.success, answer.message
    bundle = read_bundle(Path(answer.message))
    assert bundle.header.stamp_ns == stamp_ns and len(bundle.images) == len(bundle.lens_states) == 6
    code, output = replay(answer.message)
    assert code == 0, output
    assert "sweep of 6 slices, 128x96 px, ABSOLUTE" in output and "same: identical" in output


def test_a_correction_of_the_lens_reaches_the_slices_of_a_saved_sweep(focus_sweep):
    code, output = replay(focus_sweep[0].message, "-p", "lens.diopter_scale:=1.1")
    assert code == 1, output
    assert "lens.diopter_scale: 1.0 in the file, 1.1 here" in output


def test_the_picture_shows_saved_and_new_depth(focus_sweep, dual_pixel, tmp_path):
    for answer in (focus_sweep[0], dual_pixel[3]):
        assert replay(answer.message, "--out", tmp_path)[0] == 0
        assert (tmp_path / f"{Path(answer.message).stem}.png").read_bytes()[1:4] == b"PNG"
