"""Folders of captures: each layout read from a small copy of it, signs and masks kept."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from lightning_fabric import Fabric
from numpy.typing import NDArray

from depth_fusion_ros.networks.evidence import dual_pixel_evidence
from depth_fusion_ros.training.captures import (
    Capture,
    DataError,
    LensFacts,
    capture_batch,
    split_names,
)
from depth_fusion_ros.training.config import TrainingConfig
from depth_fusion_ros.training.dcdp import DcdpFolder
from depth_fusion_ros.training.folders import PlainFolder
from depth_fusion_ros.training.google_dual_pixel import GoogleDualPixelFolder
from depth_fusion_ros.training.sources import CaptureSource, make_source
from depth_fusion_ros.training.trainer import Trainer

K_PX_M, FOCUS = 4.0, 1.0
DISPARITY_PX = 2.0  # everything stands at 1/Z = 1 − 2/4 = 0.5 dioptres, behind the focus plane
DEPTH_M = 2.0
LENS = {"disparity_gain_px_m": K_PX_M, "focus_diopters": FOCUS, "kappa": 0.3}
Image = NDArray[Any]


def views(height: int, width: int, shift_px: int = int(DISPARITY_PX)) -> tuple[Image, Image]:
    """Linear light 0..1: a texture, and the same moved by `shift_px` along x."""
    noise = np.random.default_rng(0).random((height // 4, width // 4 + 8)).astype(np.float32)
    texture = cv2.resize(noise, (width + 32, height), interpolation=cv2.INTER_CUBIC)
    texture = np.clip(0.2 + 0.6 * texture, 0, 1)
    return texture[:, 16:16 + width], texture[:, 16 - shift_px:16 - shift_px + width]


def write(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, image)
    else:
        assert cv2.imwrite(str(path), image)


def counts(image: Image, bits: int = 16) -> Image:
    return np.round(image * (2**bits - 1)).astype(np.uint16 if bits == 16 else np.uint8)


def colour(height: int, width: int) -> Image:
    """BGR for imwrite: red grows along x, green along y, blue is 51/255."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([np.full_like(x, 51), y, x], -1).astype(np.uint8)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Two captures of 96x80 px; the second one has holes, and its depth as PNG."""
    left, right = views(80, 96)
    depth = np.full((80, 96), DEPTH_M, np.float32)
    for name in ("a", "b"):
        write(tmp_path / "left" / f"{name}.png", counts(left))
        write(tmp_path / "right" / f"{name}.png", counts(right))
        write(tmp_path / "rgb" / f"{name}.png", colour(80, 96))
    write(tmp_path / "depth" / "a.npy", depth)
    depth[:, :20] = 0
    write(tmp_path / "depth" / "b.png", (1000 * depth).astype(np.uint16))
    (tmp_path / "lens.yaml").write_text(yaml.safe_dump(LENS))
    return tmp_path


def measured_px(left: torch.Tensor, right: torch.Tensor) -> float:
    """What closed-form matching, which knows no label, sees."""
    evidence = dual_pixel_evidence(left, right)
    return float(evidence.disparity_px[:, 1:2].median())


def test_plain_folder_gives_labels_that_matching_confirms(plain: Path) -> None:
    folder = PlainFolder(plain)
    assert folder.names == ["a", "b"]
    batch = capture_batch(folder, ["a"], 96, 64, None)
    assert float(batch.disparity_px.mean()) == pytest.approx(DISPARITY_PX)
    assert measured_px(batch.left, batch.right) == pytest.approx(DISPARITY_PX, abs=0.2)
    assert float(batch.pixels_per_log.mean()) == pytest.approx(K_PX_M / DEPTH_M)
    assert float(batch.inverse_depth_diopters.mean()) == pytest.approx(1 / DEPTH_M)
    assert batch.valid.all() and batch.valid.dtype == torch.bool
    assert batch.rgb.shape == (1, 3, 64, 96)
    assert float(batch.rgb[0, 2].mean()) == pytest.approx(0.2), "blue is the last channel"
    linear = float(views(80, 96)[0].max())
    assert float(batch.left.max()) <= linear**0.5 + 1e-3


def test_holes_in_depth_are_not_valid_and_their_labels_finite(plain: Path) -> None:
    batch = capture_batch(PlainFolder(plain), ["b"], 96, 64, None)
    assert not batch.valid[..., :20].any()
    assert batch.valid[..., 20:].all()
    assert all(torch.isfinite(t).all() for t in vars(batch).values())
    assert float(batch.disparity_px[batch.valid].mean()) == pytest.approx(DISPARITY_PX, abs=1e-3)


@pytest.mark.parametrize("operation", ["mirrored", "upside_down"])
def test_flips_keep_the_sign_of_disparity(plain: Path, operation: str) -> None:
    capture = PlainFolder(plain).load("b")
    flipped: Capture = getattr(capture, operation)()
    left, right = (torch.from_numpy(np.ascontiguousarray(v))[None, None]
                   for v in (flipped.left, flipped.right))
    assert measured_px(left, right) == pytest.approx(DISPARITY_PX, abs=0.2)
    column, row = (-1, 0) if operation == "mirrored" else (0, -1)
    assert (flipped.rgb[row, column] == capture.rgb[0, 0]).all()
    assert flipped.valid[:, -20:].any() == (operation == "upside_down")


def test_random_crops_and_flips_repeat_by_seed_and_keep_labels(plain: Path) -> None:
    folder = PlainFolder(plain)
    batches = [capture_batch(folder, ["a", "b"] * 4, 64, 64, torch.Generator().manual_seed(s))
               for s in (1, 1, 2)]
    assert torch.equal(batches[0].left, batches[1].left)
    assert not torch.equal(batches[0].left, batches[2].left)
    for batch in batches:
        assert measured_px(batch.left, batch.right) == pytest.approx(DISPARITY_PX, abs=0.2)
        assert float(batch.disparity_px[batch.valid].min()) == pytest.approx(DISPARITY_PX)
    red = torch.cat([b.rgb[:, 0, 0, 1] - b.rgb[:, 0, 0, 0] for b in batches])
    assert (red > 0).any() and (red < 0).any(), "some are mirrored, some are not"


def test_the_lens_is_told_nearly_and_hidden_as_asked(plain: Path) -> None:
    folder = PlainFolder(plain)
    batch = capture_batch(folder, ["a"] * 32, 64, 64, torch.Generator().manual_seed(0))
    k = torch.exp(2 * batch.condition[:, 2])
    assert float(k.mean()) == pytest.approx(K_PX_M, rel=0.03)
    assert 0.005 < float(k.std() / k.mean()) < 0.1
    exact = capture_batch(folder, ["a"], 64, 64, None)
    assert float(exact.condition[0, 1]) == pytest.approx(0.3 / 0.4244)
    hidden = capture_batch(folder, ["a"] * 4, 64, 64, torch.Generator().manual_seed(0),
                           unknown_lens_share=1.0)
    assert float(hidden.condition.abs().sum()) == 0
    assert float(hidden.disparity_px.mean()) == pytest.approx(DISPARITY_PX)


def test_lens_file_knows_levels_encoding_axis_sign_and_captures(plain: Path) -> None:
    reference = PlainFolder(plain).load("a")
    assert reference.left is not None and reference.right is not None
    for part in ("left", "right", "rgb", "depth"):
        for path in (plain / part).iterdir():
            array = np.load(path) if path.suffix == ".npy" else cv2.imread(
                str(path), cv2.IMREAD_UNCHANGED)
            write(path, np.ascontiguousarray(np.swapaxes(array, 0, 1)))
    (plain / "lens.yaml").write_text(yaml.safe_dump({
        **LENS, "parallax_axis": "y", "swap_views": True, "black_level": 0.0,
        "white_level": 2 * 65535.0, "captures": {"a": {"focus_diopters": 0.5}}}))
    turned = PlainFolder(plain).load("a")
    assert turned.left is not None
    assert np.allclose(turned.left, reference.right / 2**0.5, atol=1e-4)
    assert np.array_equal(turned.rgb, reference.rgb)
    assert turned.lens == LensFacts(0.3, K_PX_M, 0.5)
    (plain / "lens.yaml").write_text("encoding: srgb\nparallax_axis: y\n")
    encoded = PlainFolder(plain).load("a")
    assert encoded.left is not None and encoded.lens is None
    # sRGB 0.5 is 0.2140 of linear light (IEC 61966-2-1).
    near = np.abs(reference.left**2 - 0.5) < 0.002
    assert near.any()
    assert np.allclose(encoded.left[near] ** 2, 0.2140, atol=0.005)


def test_a_thin_lens_gives_the_gain_of_each_focus(plain: Path) -> None:
    """f = 12 mm, N = 2, p = 20 um: f²/(N·p) = 3.6 px·m, over 1 − f/g = 0.988."""
    (plain / "lens.yaml").write_text(yaml.safe_dump({
        "focal_length_m": 0.012, "f_number": 2.0, "pixel_pitch_m": 20e-6, "kappa": 0.4,
        "focus_diopters": 1.0}))
    lens = PlainFolder(plain).load("a").lens
    assert lens is not None
    assert lens.gain_px_m == pytest.approx(0.4 * 3.6 / 0.988)


def test_rgb_and_depth_alone_serve_the_rgb_stage_only(plain: Path) -> None:
    for part in ("left", "right"):
        for path in (plain / part).iterdir():
            path.unlink()
        (plain / part).rmdir()
    (plain / "lens.yaml").unlink()
    folder = PlainFolder(plain)
    batch = capture_batch(folder, ["a"], 64, 64, None, need_views=False, need_lens=False)
    assert float(batch.left.abs().sum()) == 0
    assert torch.isnan(batch.disparity_px).all(), "no lens, no pixels: a metric loss must not run"
    assert float(batch.condition.abs().sum()) == 0
    with pytest.raises(DataError, match="rgb"):
        capture_batch(folder, ["a"], 64, 64, None, need_lens=False)
    with pytest.raises(DataError, match=r"lens\.yaml"):
        capture_batch(folder, ["a"], 64, 64, None, need_views=False)


def test_broken_folders_are_refused_by_file_and_remedy(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no files in depth/"):
        PlainFolder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="smaller than the crops of 128x64"):
        capture_batch(PlainFolder(plain), ["a"], 128, 64, None)
    (plain / "left" / "a.png").unlink()
    with pytest.raises(DataError, match=r"left: no a\.npy or \.png"):
        PlainFolder(plain).load("a")
    write(plain / "left" / "a.png", np.zeros((40, 96), np.uint8))
    with pytest.raises(DataError, match="96x40 px, its depth 96x80"):
        PlainFolder(plain).load("a")
    write(plain / "depth" / "b.png", np.zeros((80, 96), np.uint8))
    with pytest.raises(DataError, match="16-bit"):
        PlainFolder(plain).load("b")
    (plain / "lens.yaml").write_text("focal_length_m: 0.012\nfnumber: 2\n")
    with pytest.raises(DataError, match=r"lens\.yaml.*fnumber"):
        PlainFolder(plain)
    (plain / "lens.yaml").write_text("focal_length_m: 0.012\n")
    with pytest.raises(DataError, match="pixel_pitch_m"):
        PlainFolder(plain)


@pytest.fixture
def google(tmp_path: Path) -> Path:
    """Layout and size ratios of the set, upright, parallax along y: planes twice the rest."""
    upper, lower = (v.T for v in views(192, 256))
    code = np.full((128, 96), 102, np.uint8)  # g = 0.4: 5 − 4.99·0.4 = 3.004 dioptres
    confidence = np.ones((128, 96), np.float32)
    confidence[:32] = 0.2
    for view in ("center", "top"):
        for folder, name, image in (
                ("scaled_images", "scaled_image", colour(128, 96)),
                ("left_pd", "leftPd", counts(upper)), ("right_pd", "rightPd", counts(lower)),
                ("merged_depth", "merged_depth", code)):
            suffix = "jpg" if folder == "scaled_images" else "png"
            write(tmp_path / folder / "20180302_1" / f"result_{name}_{view}.{suffix}", image)
        write(tmp_path / "merged_conf" / "20180302_1" / f"result_merged_conf_{view}.npy",
              confidence)
    return tmp_path


def test_google_layout_gives_relative_depth_with_parallax_along_x(google: Path) -> None:
    folder = GoogleDualPixelFolder(google)
    assert folder.names == ["20180302_1/center", "20180302_1/top"]
    batch = capture_batch(folder, folder.names[:1], 128, 96, None, need_lens=False)
    assert batch.left.shape == (1, 1, 96, 128), "128 rows became 128 columns"
    # 2 px of the planes are 1 px of the grid, half as fine.
    assert measured_px(batch.left, batch.right) == pytest.approx(1.0, abs=0.2)
    assert float(batch.inverse_depth_diopters.mean()) == pytest.approx(5 - 4.99 * 0.4, abs=1e-5)
    assert not batch.valid[..., :32].any() and batch.valid[..., 32:].all()
    assert float(batch.condition.abs().sum()) == 0
    assert torch.isnan(batch.disparity_px).all()
    swapped = GoogleDualPixelFolder(google, swap_views=True, min_confidence=0.1)
    batch = capture_batch(swapped, folder.names[:1], 128, 96, None, need_lens=False)
    assert measured_px(batch.left, batch.right) == pytest.approx(-1.0, abs=0.2)
    assert batch.valid.all()
    upright = GoogleDualPixelFolder(google, parallax_axis="x").load(folder.names[0])
    assert upright.valid.shape == (128, 96)


def test_google_layout_with_missing_files_is_refused(google: Path, tmp_path: Path) -> None:
    (google / "merged_conf" / "20180302_1" / "result_merged_conf_top.npy").unlink()
    with pytest.raises(DataError, match=r"merged_conf.*top\.npy"):
        GoogleDualPixelFolder(google).load("20180302_1/top")
    with pytest.raises(DataError, match="merged_depth/CAPTURE"):
        GoogleDualPixelFolder(tmp_path / "merged_depth")


def test_dcdp_layout_has_masks_and_parallax_along_y(tmp_path: Path) -> None:
    upper, lower = (v.T for v in views(80, 96))
    mask = np.full((96, 80), 255, np.uint8)
    mask[-24:] = 0
    write(tmp_path / "left" / "1.png", counts(upper, 8))
    write(tmp_path / "right" / "1.png", counts(lower, 8))
    write(tmp_path / "center" / "1.png", colour(96, 80))
    write(tmp_path / "depth" / "1.npy", np.full((96, 80), DEPTH_M, np.float32))
    write(tmp_path / "mask" / "1.png", mask)
    batch = capture_batch(DcdpFolder(tmp_path), ["1"], 96, 64, None, need_lens=False)
    assert measured_px(batch.left, batch.right) == pytest.approx(DISPARITY_PX, abs=0.2)
    assert batch.valid[..., :-24].all() and not batch.valid[..., -24:].any()
    assert float(batch.inverse_depth_diopters[batch.valid].mean()) == pytest.approx(1 / DEPTH_M)
    write(tmp_path / "mask" / "1.png", mask[:50])
    with pytest.raises(DataError, match="80x50 px"):
        DcdpFolder(tmp_path).load("1")
    (tmp_path / "center").rename(tmp_path / "rgb")
    with pytest.raises(DataError, match="center/"):
        DcdpFolder(tmp_path)


def test_held_out_captures_are_never_trained_on_and_keep_their_side() -> None:
    names = [f"capture_{n}" for n in range(200)]
    trained, held = split_names(names, 0.1)
    assert not set(trained) & set(held)
    assert sorted(trained + held) == sorted(names)
    assert 8 <= len(held) <= 35
    more, held_later = split_names([*names, "another", "and_one_more"], 0.1)
    assert set(held) <= set(held_later) and set(trained) <= set(more)
    assert split_names(["only"], 0.99)[0] == ["only"]


def test_sources_mix_by_weight_and_each_part_depends_on_its_seed(plain: Path) -> None:
    section = {"kind": "folder", "path": str(plain), "width_px": 64, "height_px": 64,
               "held_out_share": 0}
    other = {**section, "width_px": 96}
    config = TrainingConfig(batch=2, data=section, more_data=[{**other, "weight": 3.0}])
    source = make_source(config, plain, "cpu", need_views=True)
    source.prepare(Fabric(accelerator="cpu", devices=1))
    widths = [source.batch(2, seed, 0.0).left.shape[-1] for seed in range(60)]
    assert 35 <= widths.count(96) <= 55
    assert torch.equal(source.batch(2, 7, 0.0).left, source.batch(2, 7, 0.0).left)
    assert list(source.held_out()) == []
    assert source.batch(5, 0, 0.0).left.shape[0] == 5, "two captures serve a batch of five"


@pytest.mark.parametrize("kind", ["folder", "google_dual_pixel"])
def test_a_run_on_captures_alone_trains_and_measures_held_out_ones(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    metric = kind == "folder"
    root: Path = request.getfixturevalue("plain" if metric else "google")
    config = TrainingConfig(
        data={"kind": kind, "path": str(root), "width_px": 64, "height_px": 64,
              "held_out_share": 0.9},
        loss={"kind": "metric" if metric else "affine"}, steps=2, batch=2, threads=1,
        hardware={"accelerator": "cpu", "prefetch": 1})
    trainer = Trainer(config, tmp_path / "run", tmp_path)
    source = trainer.source.sources[0]
    assert isinstance(source, CaptureSource) and source.held_out_names
    trainer.run()
    last = list(csv.DictReader((tmp_path / "run" / "curve.csv").open()))[-1]
    assert np.isfinite(float(last["loss"]))
    column = "val_mae_px" if metric else "val_affine_mae"
    assert np.isfinite(float(last[column]))
    assert last["val_affine_mae" if metric else "val_mae_px"] == ""
