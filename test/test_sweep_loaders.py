"""Loaders of focus sweeps: DDFF-12 from a small copy of its file, sweeps from RGB and depth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from depth_fusion_ros.training.captures import DataError
from depth_fusion_ros.training.ddff12 import (
    DDFF12_TEST_FRAMES,
    DISPARITY_TIMES_DEPTH_M,
    PLANE_DISPARITIES,
    Ddff12File,
)
from depth_fusion_ros.training.rgbd_sweeps import (
    RgbdSweepFolder,
    SweepCamera,
    SweepCapture,
    disc_kernel,
    fill_nearest,
    render_sweep,
    sweep_positions,
)

HEIGHT, WIDTH = 23, 36
CAMERA = SweepCamera(focal_length_m=0.016, f_number=2.8, pixel_pitch_m=10e-6, slices=5)
"""A = 9.14 px of blur per dioptre."""
Array = NDArray[Any]


@pytest.fixture
def ddff12(tmp_path: Path) -> Path:
    """Both splits; slice n of every sweep is grey 20·n + the number of the sweep."""
    path = tmp_path / "ddff-dataset-trainval.h5"
    with h5py.File(path, "w") as file:
        for split, count in (("train", 3), ("val", 2)):
            stack = np.zeros((count, 10, HEIGHT, WIDTH, 3), np.float32)
            stack += 20 * np.arange(10)[None, :, None, None, None]
            stack += np.arange(count)[:, None, None, None, None]
            disparity = np.full((count, HEIGHT, WIDTH), 0.141238, np.float32)
            disparity[:, 0, :4] = (0, np.nan, 0.02, 0.28)
            file[f"stack_{split}"], file[f"disp_{split}"] = stack, disparity
    return path


def grey_levels(capture: SweepCapture) -> list[int]:
    return [int(image[0, 0, 0]) for image in capture.stack]


def test_ddff12_gives_dioptres_with_focus_rising_from_7_m_to_half_a_metre(ddff12: Path) -> None:
    file = Ddff12File(ddff12, "val")
    assert file.names == ["val_0000", "val_0001"]
    capture = file.load("val_0001")
    assert capture.stack.shape == (10, HEIGHT, WIDTH, 3) and capture.stack.dtype == np.uint8
    assert (np.diff(capture.focus_diopters) > 0).all()
    assert 1 / capture.focus_diopters[[0, -1]] == pytest.approx((7.0619, 0.50442), rel=1e-4)
    assert grey_levels(capture) == [20 * n + 1 for n in range(9, -1, -1)], "stored near to far"
    assert capture.inverse_depth_diopters[5, 5] == pytest.approx(1.0), "0.141238 stands for 1 m"


def test_ddff12_truth_counts_strictly_inside_the_published_mask(ddff12: Path) -> None:
    capture = Ddff12File(ddff12, "train").load("train_0000")
    assert not capture.valid[0, :4].any(), "0, NaN and both limits"
    assert capture.valid.sum() == HEIGHT * WIDTH - 4
    assert np.isfinite(capture.inverse_depth_diopters).all()


def test_ddff12_offers_the_five_frames_of_published_tests(ddff12: Path) -> None:
    assert tuple(np.linspace(0, 9, 5).astype(int)) == DDFF12_TEST_FRAMES
    capture = Ddff12File(ddff12, "val", DDFF12_TEST_FRAMES).load("val_0000")
    assert grey_levels(capture) == [180, 120, 80, 40, 0]
    disparities = capture.focus_diopters[::-1] * DISPARITY_TIMES_DEPTH_M
    assert disparities == pytest.approx((0.28, 0.2222, 0.1644, 0.1067, 0.02), abs=1e-4)
    assert PLANE_DISPARITIES[1] == pytest.approx(0.28 - 0.26 / 9)


def test_ddff12_refuses_what_is_not_there_by_name_and_remedy(ddff12: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split 'test': unknown; use one of train, val"):
        Ddff12File(ddff12, "test")
    with pytest.raises(ValueError, match=r"frames = \(0, 10\).*published five"):
        Ddff12File(ddff12, "val", (0, 10))
    with pytest.raises(DataError, match="val_0002"):
        Ddff12File(ddff12, "val").load("val_0002")
    with pytest.raises(DataError, match=r"nothing\.h5: cannot be opened as HDF5"):
        Ddff12File(tmp_path / "nothing.h5", "val")
    with h5py.File(ddff12, "a") as file:
        del file["disp_val"]
    with pytest.raises(DataError, match="not stack_val and disp_val"):
        Ddff12File(ddff12, "val")
    with h5py.File(ddff12, "a") as file:
        file["disp_val"] = np.zeros((2, HEIGHT, WIDTH + 1))
    with pytest.raises(DataError, match="must agree in n, H and W"):
        Ddff12File(ddff12, "val")


def test_padding_reflects_slices_and_adds_no_truth(ddff12: Path) -> None:
    capture = Ddff12File(ddff12, "train").load("train_0000")
    ramp = np.arange(WIDTH, dtype=np.uint8)
    capture = replace(capture, stack=np.broadcast_to(ramp[:, None], capture.stack.shape))
    padded = capture.padded(32)
    assert padded.stack.shape == (10, 32, 64, 3)
    assert padded.valid.shape == padded.inverse_depth_diopters.shape == (32, 64)
    assert list(padded.stack[0, 0, WIDTH - 1:WIDTH + 2, 0]) == [WIDTH - 1, WIDTH - 2, WIDTH - 3]
    assert padded.valid.sum() == capture.valid.sum()
    assert np.array_equal(padded.stack[:, :HEIGHT, :WIDTH], capture.stack)


def checks(height: int = 64, width: int = 96) -> Array:
    """(H, W, 3) float32 black and white checks of 4 px."""
    y, x = np.mgrid[:height, :width] // 4
    return np.repeat(((x + y) % 2).astype(np.float32)[..., None], 3, axis=2)


@pytest.fixture
def rgbd(tmp_path: Path) -> Path:
    """One capture, as .npz, with holes: the left half at 2 m, the right half at 0.8 m."""
    depth = np.full((64, 96), 2.0, np.float32)
    depth[:, 48:] = 0.8
    depth[:8, :8] = 0
    for folder in ("rgb", "depth"):
        (tmp_path / folder).mkdir()
    assert cv2.imwrite(str(tmp_path / "rgb" / "a.png"), (checks() * 255).astype(np.uint8))
    np.savez(tmp_path / "depth" / "a.npz", depth=depth)
    return tmp_path


def contrast(image: Array) -> float:
    return float(image.astype(np.float64).std())


def test_a_sweep_from_rgb_and_depth_is_sharp_where_the_focus_is(rgbd: Path) -> None:
    folder = RgbdSweepFolder(rgbd, CAMERA)
    capture = folder.load("a")
    assert folder.names == ["a"] and capture.stack.shape == (5, 64, 96, 3)
    assert capture.focus_diopters == pytest.approx(np.linspace(0.5, 1.25, 5))
    far = [contrast(image[16:48, 8:36]) for image in capture.stack]
    near = [contrast(image[16:48, 60:88]) for image in capture.stack]
    assert (np.diff(far) < 0).all() and (np.diff(near) > 0).all()
    assert far[0] == near[-1] == 127.5, "in focus, the picture is as it was"
    assert not capture.valid[:8, :8].any() and capture.valid.sum() == 64 * 96 - 64
    assert far[-1] < 30, "0.75 dioptres of defocus are 6.9 px of blur: wider than the checks"


def test_sixteen_bit_millimetres_give_the_same_sweep(rgbd: Path) -> None:
    reference = RgbdSweepFolder(rgbd, CAMERA).load("a")
    depth_m = np.load(rgbd / "depth" / "a.npz")["depth"]
    (rgbd / "depth" / "a.npz").unlink()
    assert cv2.imwrite(str(rgbd / "depth" / "a.png"), (1000 * depth_m).astype(np.uint16))
    assert np.array_equal(RgbdSweepFolder(rgbd, CAMERA).load("a").stack, reference.stack)


def test_blur_is_as_wide_as_the_circle_of_confusion() -> None:
    """A point at 1 m seen with the focus 0.5 dioptres off: a disc of A·0.5 px."""
    point = np.zeros((41, 41, 3), np.float32)
    point[20, 20] = 1
    seen = render_sweep(point, np.ones((41, 41), np.float32), np.array([0.5, 1.0, 1.5]), CAMERA)
    assert np.count_nonzero(seen[1, ..., 0]) == 1
    for image, focus in ((seen[0], 0.5), (seen[2], 1.5)):
        diameter_px = CAMERA.lens(focus).blur_gain_px_m * 0.5
        area_px = np.count_nonzero(image[..., 0])
        assert area_px == pytest.approx(np.pi * (diameter_px / 2 + 0.5) ** 2, rel=0.15)


def test_far_blur_does_not_cover_a_sharp_near_object() -> None:
    """White behind, black in front and in focus: the front stays black up to its border."""
    rgb = np.ones((32, 48, 3), np.float32)
    rgb[:, 24:] = 0
    inverse = np.where(np.arange(48) < 24, 0.3, 1.5) * np.ones((32, 1))
    seen = render_sweep(rgb, inverse, np.array([1.5]), CAMERA)
    assert seen[0, 16, 24:, 0].max() == 0
    assert seen[0, 16, :10, 0].min() == 255


def test_discs_have_unit_sum_and_grow_steadily_from_a_point() -> None:
    assert disc_kernel(0.0).tolist() == disc_kernel(1.0).tolist() == [[1.0]]
    spreads = []
    for diameter_px in (1.5, 2.0, 3.0, 5.0, 9.5, 20.0):
        kernel = disc_kernel(diameter_px)
        assert kernel.sum() == pytest.approx(1.0, abs=1e-5)
        assert np.array_equal(kernel, kernel[::-1, ::-1])
        reach = len(kernel) // 2
        y, x = np.mgrid[-reach:reach + 1, -reach:reach + 1]
        spreads.append(float(np.sqrt((kernel * (x**2 + y**2)).sum())))
    assert (np.diff(spreads) > 0).all()
    # A disc's root mean square radius is r/√2.
    assert spreads[-1] == pytest.approx(10 / 2**0.5, rel=0.05)


def test_positions_span_the_scene_and_a_flat_scene_is_still_swept() -> None:
    scene = np.concatenate([np.linspace(0.2, 2.2, 10_000), [9.0]])
    assert sweep_positions(scene, 3) == pytest.approx((0.22, 1.2, 2.18), abs=2e-3)
    flat = sweep_positions(np.full(50, 1.0), 5)
    assert flat[[0, 2, 4]] == pytest.approx((0.975, 1.0, 1.025))
    assert sweep_positions(np.full(50, 0.001), 2)[0] == 0.0, "nothing is behind infinity"


def test_holes_take_the_nearest_value() -> None:
    values = np.array([[1, 0, 0, 0, 5]], np.float32)
    assert fill_nearest(values, values > 0).tolist() == [[1, 1, pytest.approx(3, abs=2), 5, 5]]
    assert fill_nearest(values, values >= 0).tolist() == values.tolist()


def test_broken_rgbd_folders_are_refused_by_file_and_remedy(rgbd: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no files in depth/"):
        RgbdSweepFolder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="slices = 1"):
        replace(CAMERA, slices=1)
    with pytest.raises(ValueError, match="f_number = 0"):
        replace(CAMERA, f_number=0.0)
    np.save(rgbd / "depth" / "b.npy", np.ones((64, 96)))
    with pytest.raises(DataError, match=r"rgb: no b\.png or \.jpg"):
        RgbdSweepFolder(rgbd).load("b")
    np.savez(rgbd / "depth" / "a.npz", depth=np.zeros((64, 96)))
    with pytest.raises(DataError, match="'a' has no pixel with depth"):
        RgbdSweepFolder(rgbd).load("a")
    np.savez(rgbd / "depth" / "a.npz", depth=np.ones((32, 96)))
    with pytest.raises(DataError, match="96x64 px, its depth 96x32"):
        RgbdSweepFolder(rgbd).load("a")
    np.savez(rgbd / "depth" / "a.npz", z=np.ones((64, 96)))
    with pytest.raises(DataError, match="write it with"):
        RgbdSweepFolder(rgbd).load("a")
    (rgbd / "depth" / "a.npz").unlink()
    assert cv2.imwrite(str(rgbd / "depth" / "a.png"), np.ones((64, 96), np.uint8))
    with pytest.raises(DataError, match="16-bit PNG"):
        RgbdSweepFolder(rgbd).load("a")
