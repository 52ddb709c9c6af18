"""depth-fusion calibrate-lens from bag to camera file, on a small drawn bench; bad input."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lens_bench_pictures import DrawnCamera, drawn_images
from typer.testing import CliRunner

from depth_fusion_ros.bags import topics as names
from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.recording import BagWriter
from depth_fusion_ros.cli.main import app
from depth_fusion_ros.cli.simulated_lens_bag import record_images
from depth_fusion_ros.evaluation.camera_file import focus_sigma_diopters
from depth_fusion_ros.evaluation.lens_bag import ViewLevels, lens_images
from depth_fusion_ros.evaluation.lens_bench_fit import calibrate_camera
from depth_fusion_ros.evaluation.lens_errors import calibrate_with_errors
from depth_fusion_ros.evaluation.lens_stations import StationCollector
from depth_fusion_ros.optics.calibration_board import CalibrationBoard
from depth_fusion_ros.optics.gain_field import FieldPolynomial
from depth_fusion_ros.ros.parameter_tables import TABLES

CAMERA = DrawnCamera()


@dataclass(frozen=True)
class Run:
    """What a command left behind."""

    code: int
    text: str
    folder: Path

    def parameters(self, node: str = "/**") -> dict[str, Any]:
        content = yaml.safe_load((self.folder / "cam.yaml").read_text())
        return dict(content[node]["ros__parameters"])


def calibrate(folder: Path, *arguments: str | Path) -> Run:
    result = CliRunner().invoke(app, [
        "calibrate-lens", *map(str, arguments), "--name", "cam", "--out", str(folder),
        "--report", str(folder)])
    return Run(result.exit_code, " ".join(result.output.split()), folder)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_images(drawn_images(CAMERA), tmp_path_factory.mktemp("bench") / "bag")


@pytest.fixture(scope="module")
def good(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return calibrate(tmp_path_factory.mktemp("good"), bag)


def excerpt(bag: Path, path: Path, *, without: str = "", until_s: float = 1e9, grey: bool = False,
            lens_only_pairs: bool = False) -> Path:
    """Copy a bag without a topic, up to a time, or with its sweep images grey all over."""
    with BagReader(bag) as source, BagWriter(path) as target:
        for topic, time_ns, message in source.messages():
            short = topic.removeprefix("/camera/")
            if short == without or (time_ns - source.start_ns) / 1e9 > until_s:
                continue
            if lens_only_pairs and short.startswith("sweep/"):
                continue
            if grey and hasattr(message, "data"):
                message.data = np.full_like(message.data, 128)
            types = names.SWEEP_INPUT_TOPICS | names.INPUT_TOPICS
            target.write_message(topic, types[short], message, time_ns)
    return path


def test_a_camera_of_known_truth_is_found_from_its_bag(good: Run) -> None:
    assert good.code == 0, good.text
    found = good.parameters()
    assert found["lens.diopter_scale"] == pytest.approx(0.8, rel=0.03)
    assert found["lens.diopter_offset"] == pytest.approx(-0.6, abs=0.08)
    assert found["lens.breathing_per_diopter"] == pytest.approx(0.03, abs=0.002)
    assert found["dp.parallax_axis"] == "y" and found["dp.swap_views"] is True
    field = FieldPolynomial.from_dict(yaml.safe_load(found["lens.gain_field"]))
    assert field.to_dict()["y2"] == pytest.approx(CAMERA.edge_ratio, abs=0.06)
    bridge = good.parameters("/**/lens_state_bridge")
    assert bridge == {"focus_calibration": "calibrated", "lens.latency_frames": 1}


def test_the_gain_of_the_dual_pixels_is_that_of_the_split(good: Run) -> None:
    lens = CAMERA.lens.refocused(CAMERA.pair_focus_diopters)
    found = float(good.parameters()["lens.kappa"]) * lens.blur_gain_px_m
    assert found == pytest.approx(CAMERA.gain_px_m, rel=0.02)


def test_what_is_said_of_the_errors_holds_them(bag: Path) -> None:
    collector = StationCollector(CalibrationBoard.charuco())
    for image in lens_images(bag, ViewLevels()):
        if image is not None:
            collector.add(image)
    collected = collector.finish()
    found = calibrate_with_errors(collected, collector.board)
    own = calibrate_camera(collected, collector.board)
    assert found.sweep and found.dual_pixel and own.sweep and own.dual_pixel
    gain, repeated = found.dual_pixel.calibration, own.dual_pixel.calibration
    field = gain.gain_field.to_dict()["y2"] if gain.gain_field else 0.0
    for error, stated, repeatability in (
            (found.sweep.scale - CAMERA.scale, found.sweep.scale_error, own.sweep.scale_error),
            (found.sweep.offset - CAMERA.offset, found.sweep.offset_error, own.sweep.offset_error),
            (found.sweep.breathing - CAMERA.breathing_per_diopter, found.sweep.breathing_error,
             own.sweep.breathing_error),
            (gain.gain_px_m - CAMERA.gain_px_m, gain.gain_std_px_m, repeated.gain_std_px_m),
            (field - CAMERA.edge_ratio, gain.field_std[0], repeated.field_std[0])):
        assert abs(error) < 3 * stated and stated > repeatability
    assert found.sweep.scale == own.sweep.scale and found.sweep.scale_error < 0.04
    assert focus_sigma_diopters(found) > focus_sigma_diopters(own)


def test_two_distances_give_repeatability_only_and_say_so(bag: Path, tmp_path: Path) -> None:
    run = calibrate(tmp_path / "out", excerpt(bag, tmp_path / "two", until_s=7.5))
    assert run.code == 0, run.text
    assert "± of the dioptres is repeatability only, and too small" in run.text


def test_every_parameter_of_the_camera_file_is_one_a_node_has_and_within_its_range(good: Run
                                                                                   ) -> None:
    tables = {table.node_name: table for table in TABLES}
    for name, value in good.parameters().items():
        rows = [tables[node].rows[name] for node in ("dual_pixel_depth", "focus_sweep_depth")
                if name in tables[node].rows]
        assert rows, name
        for row in rows:
            assert type(value) is type(row.default), name
            assert row.minimum is None or row.minimum <= value <= row.maximum, name
    for node in ("lens_state_bridge", "focus_sweep_controller"):
        for name in good.parameters(f"/**/{node}"):
            assert name in tables[node].rows


def test_the_page_needs_no_network_and_shows_the_pictures(good: Run) -> None:
    page = (good.folder / "cam.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert "http" not in page and "<script" not in page
    assert "dioptre scale" in page and "lens.kappa" in page


def test_a_camera_file_that_is_there_stays_unless_asked(bag: Path, tmp_path: Path) -> None:
    mine = tmp_path / "cam.yaml"
    mine.write_text("mine")
    refused = calibrate(tmp_path, bag)
    assert refused.code == 2 and "--overwrite" in refused.text
    assert mine.read_text() == "mine" and not (tmp_path / "cam.html").exists()


def test_pairs_alone_give_the_gain_and_say_what_is_missing(bag: Path, tmp_path: Path) -> None:
    run = calibrate(tmp_path / "out", excerpt(bag, tmp_path / "pairs", lens_only_pairs=True))
    assert run.code == 0, run.text
    assert "dioptre scale is not measured" in run.text
    assert run.parameters()["lens.diopter_scale"] == 1.0
    assert "lens.breathing_per_diopter" not in run.parameters()


@pytest.mark.parametrize(("changes", "says"), [
    ({"without": "lens_state"}, "no messages on /camera/lens_state"),
    ({"without": "sweep/camera_info"}, "no messages on /camera/sweep/camera_info"),
    ({"grey": True, "until_s": 2.0}, "is in none of"),
    ({"until_s": 2.8}, "1 of 1 board distances"),
])
def test_bad_recordings_end_in_one_sentence_and_write_nothing(
        bag: Path, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    run = calibrate(tmp_path / "out", excerpt(bag, tmp_path / "bad", **changes))
    assert run.code == 2, run.text
    assert says in run.text and "Traceback" not in run.text
    assert not (tmp_path / "out").exists()


def test_a_truncated_bag_is_named(bag: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bag, broken)
    (data,) = broken.glob("*.mcap")
    data.write_bytes(data.read_bytes()[:20_000])
    run = calibrate(tmp_path / "out", broken)
    assert run.code == 2 and "truncated" in run.text and "broken" in run.text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("arguments", "says"), [
    (("nowhere",), "nowhere"), ((), "no recording"), (("b", "--board", "circles"), "circles"),
    (("b", "--squares", "five"), "5x4"), (("b", "--gain-terms", "z2"), "z2"),
    (("--simulate", "nobody"), "nobody"),
    (("b", "--white-level", "5", "--black-level", "9"), "above black")])
def test_options_that_cannot_be_are_named(tmp_path: Path, arguments: tuple[str, ...], says: str
                                          ) -> None:
    run = calibrate(tmp_path / "out", *arguments)
    assert run.code == 2 and says in run.text and "Traceback" not in run.text
