"""The dual-pixel estimator: metres, range semantics, refusals, model cards and backends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from depth_fusion_ros.estimation.backends import NetworkInput, load_backend
from depth_fusion_ros.estimation.dual_pixel import (
    DualPixelEstimator,
    DualPixelFrame,
    DualPixelOptions,
    InvalidFrameError,
)
from depth_fusion_ros.estimation.estimate import Provenance, ScaleState
from depth_fusion_ros.estimation.scale_anchor import AnchorFit
from depth_fusion_ros.networks.convention import lens_condition
from depth_fusion_ros.optics.gain_field import FieldPolynomial
from depth_fusion_ros.optics.thin_lens import ThinLens


@pytest.fixture
def estimator() -> DualPixelEstimator:
    return DualPixelEstimator(load_backend("closed_form", threads=1),
                              DualPixelOptions(max_depth_m=20))


class FixedBackend:
    """Returns a given disparity and sigma: tests what the estimator does with it."""

    model_id, device_name, backend_name, input_multiple_px, card = "fixed", "cpu", "fixed", 8, None

    def __init__(self, disparity_px: np.ndarray, sigma_px: float = 0.01) -> None:
        self.disparity, self.sigma = disparity_px.astype(np.float32), sigma_px
        self.seen: NetworkInput | None = None

    def infer(self, inputs: NetworkInput) -> tuple[np.ndarray, np.ndarray]:
        self.seen = inputs
        out = np.zeros(inputs.left.shape[2:], np.float32)
        h, w = self.disparity.shape
        out[:h, :w] = self.disparity
        return out, np.full_like(out, self.sigma)


def test_depth_of_textured_pixels_is_metric(
    frame: DualPixelFrame, estimator: DualPixelEstimator
) -> None:
    estimate = estimator.estimate(frame)
    truth = frame.truth_m  # type: ignore[attr-defined]
    use = (estimate.provenance == Provenance.MEASURED) & np.isfinite(estimate.depth_m)
    assert use.mean() > 0.05
    assert np.median(np.abs(estimate.depth_m - truth)[use] / truth[use]) < 0.1
    assert estimate.scale_state is ScaleState.ABSOLUTE
    assert (estimate.stamp_ns, estimate.frame_id) == (42, "optical")
    assert set(estimate.stage_ms) == {"preprocess", "inference", "postprocess"}


def test_known_disparity_becomes_the_depth_of_the_lens_equation(frame: DualPixelFrame) -> None:
    lens = frame.lens
    assert lens is not None
    wanted_m = np.linspace(0.3, 4.0, 160)[None].repeat(120, 0)
    estimator = DualPixelEstimator(FixedBackend(lens.disparity_px(wanted_m)),
                                   DualPixelOptions(max_sigma_ratio=np.inf, edge_filter_px=0))
    estimate = estimator.estimate(frame)
    assert np.allclose(estimate.depth_m, wanted_m, rtol=1e-4)
    assert np.allclose(estimate.sigma_m, wanted_m**2 * 0.01 / lens.disparity_gain_px_m, rtol=1e-3)


def test_a_lens_with_fields_is_followed_pixel_by_pixel_on_the_grid_of_the_image(
    frame: DualPixelFrame,
) -> None:
    assert frame.lens is not None and frame.rgb is not None
    lens = replace(frame.lens, gain_field=FieldPolynomial(((2, 0, -0.6),)),
                   focus_field=FieldPolynomial(((0, 1, 0.1),)), focus_sigma_diopters=0.02)
    wanted_m = np.linspace(0.4, 3.0, 160)[None].repeat(120, 0)
    k = lens.gain_map_px_m(160, 120)
    backend = FixedBackend(k * (lens.focus_map_diopters(160, 120) - 1 / wanted_m))
    estimator = DualPixelEstimator(backend, DualPixelOptions(max_sigma_ratio=np.inf,
                                                             edge_filter_px=0))
    estimate = estimator.estimate(replace(frame, lens=lens))
    assert np.allclose(estimate.depth_m, wanted_m, rtol=1e-4)
    assert np.allclose(estimate.sigma_m, wanted_m**2 * np.hypot(0.01 / k, 0.02), rtol=1e-3)
    large = estimator.estimate(replace(frame, lens=lens, rgb=frame.rgb.repeat(2, 0).repeat(2, 1),
                                       intrinsics=frame.intrinsics.resized(320, 240)))
    middle = large.depth_m[1::2, 1::2][2:-2, 2:-2] / wanted_m[2:-2, 2:-2]
    assert np.abs(middle - 1).max() < 0.05, "the field belongs to the image, not to a grid"


@pytest.mark.parametrize(("height", "width"), [(120, 160), (119, 157)])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_at_half_resolution_metres_and_grid_stay(
    frame: DualPixelFrame, height: int, width: int, axis: str
) -> None:
    lens = frame.lens
    assert lens is not None
    wanted_m = np.linspace(0.8, 1.6, width)[None].repeat(height, 0)
    d = lens.disparity_px(wanted_m)

    class Halved(FixedBackend):
        def infer(self, inputs: NetworkInput) -> tuple[np.ndarray, np.ndarray]:
            """Disparity in pixels of the reduced views: half of it, on every second pixel."""
            half = np.pad(d, ((0, height % 2), (0, width % 2)), "edge")
            half = half.reshape(-(-height // 2), 2, -1, 2).mean((1, 3)) / 2
            self.disparity = (half.T if axis == "y" else half).astype(np.float32)
            return super().infer(inputs)

    backend = Halved(d)
    estimator = DualPixelEstimator(backend, DualPixelOptions(
        max_sigma_ratio=np.inf, edge_filter_px=0, inference_divisor=2, parallax_axis=axis))
    views = [view[:height, :width] for view in (frame.left, frame.right)]
    estimate = estimator.estimate(replace(
        frame, left=views[0], right=views[1], rgb=None,
        intrinsics=frame.intrinsics.resized(width, height)))
    assert estimate.depth_m.shape == (height, width)
    assert np.abs(estimate.depth_m / wanted_m - 1)[2:-2, 2:-2].max() < 0.002
    assert np.allclose(estimate.sigma_px, 2**1.5 * 0.01), "wider by the root of two, in pixels"
    assert backend.seen is not None
    assert max(backend.seen.left.shape[2:]) == max(-(-height // 2), -(-width // 2)) + (
        -max(-(-height // 2), -(-width // 2)) % backend.input_multiple_px)
    full = FixedBackend(d)
    DualPixelEstimator(full, DualPixelOptions()).estimate(frame)
    gain_of = {True: lens.disparity_gain_px_m / 2, False: lens.disparity_gain_px_m}
    for seen, halved in ((backend.seen, True), (full.seen, False)):
        condition = lens_condition(*(torch.tensor([value], dtype=torch.float32) for value in (
            lens.kappa, gain_of[halved], lens.focus_diopters)))
        assert seen is not None and np.allclose(seen.condition, condition.numpy())


def test_a_view_that_is_too_small_to_be_halved_is_seen_whole(frame: DualPixelFrame) -> None:
    backend = FixedBackend(np.zeros((40, 50)))
    DualPixelEstimator(backend, DualPixelOptions(inference_divisor=2)).estimate(replace(
        frame, left=frame.left[:40, :50], right=frame.right[:40, :50], rgb=None,
        intrinsics=frame.intrinsics.resized(50, 40)))
    assert backend.seen is not None and backend.seen.left.shape[2] == 40


@pytest.mark.parametrize("state", [ScaleState.NOMINAL, ScaleState.RELATIVE])
def test_an_anchor_turns_a_wrong_lens_into_true_metres(
    frame: DualPixelFrame, state: ScaleState
) -> None:
    lens = frame.lens
    assert lens is not None
    wanted_m = np.linspace(0.4, 4.0, 160)[None].repeat(120, 0)
    seen = 0.8 / wanted_m + 0.3  # what the lens says of everything, dioptres
    disparity = lens.disparity_gain_px_m * (lens.focus_diopters - seen)
    anchor = AnchorFit(1 / 0.8, -0.3 / 0.8, 0.02, observations=8, fixes_scale=True)
    estimator = DualPixelEstimator(FixedBackend(disparity),
                                   DualPixelOptions(max_sigma_ratio=np.inf, edge_filter_px=0))
    estimate = estimator.estimate(replace(frame, scale_state=state, anchor=anchor))
    assert estimate.scale_state is ScaleState.ANCHORED
    assert np.allclose(estimate.depth_m, wanted_m, rtol=1e-4)
    gain = 0.8 * lens.disparity_gain_px_m
    assert np.allclose(estimate.sigma_m, wanted_m**2 * np.hypot(0.01 / gain, 0.02), rtol=1e-3)
    assert np.allclose(estimate.lens_diopters, seen, rtol=1e-4), "as before any anchor"


def test_the_network_is_told_the_mean_gain_and_focus_of_a_lens_with_fields(
    frame: DualPixelFrame,
) -> None:
    assert frame.lens is not None
    backend = FixedBackend(np.zeros((120, 160)))
    estimator = DualPixelEstimator(backend)
    estimator.estimate(frame)
    assert backend.seen is not None
    plain = backend.seen.condition.copy()
    # the mean of u² over −1 … 1 is 1/3: k falls to 0.8 of the centre's
    estimator.estimate(replace(frame, lens=replace(
        frame.lens, gain_field=FieldPolynomial(((2, 0, -0.6),)))))
    assert backend.seen.condition[0, 1] == pytest.approx(0.8 * plain[0, 1], rel=1e-5)
    assert backend.seen.condition[0, 2] == pytest.approx(plain[0, 2] + np.log(0.8) / 2, abs=1e-5)
    assert backend.seen.condition[0, 3] == pytest.approx(0.8 * plain[0, 3], rel=1e-5)


def test_too_far_too_near_and_too_unsure_are_inf_minus_inf_and_nan(frame: DualPixelFrame) -> None:
    assert frame.lens is not None
    # A lens so slow, and views so alike, that no depth contradicts the views.
    lens = replace(frame.lens, f_number=1000.0)
    frame = replace(frame, lens=lens, right=frame.left)
    wanted_m = np.full((120, 160), 1.0)
    wanted_m[:40], wanted_m[40:80] = 0.1, 12.0
    backend = FixedBackend(lens.disparity_px(wanted_m), 1e-5)
    options = DualPixelOptions(min_depth_m=0.2, max_depth_m=8.0, edge_filter_px=0)
    estimate = DualPixelEstimator(backend, options).estimate(frame)
    assert np.isneginf(estimate.depth_m[:40]).all()
    assert np.isposinf(estimate.depth_m[40:80]).all()
    assert np.allclose(estimate.depth_m[80:], 1.0, rtol=1e-4)
    assert np.isnan(estimate.sigma_m[:80]).all()
    seen = FixedBackend(lens.disparity_px(np.full((120, 160), 1.0)), 1e-5)
    plain = DualPixelEstimator(seen, options).estimate(frame).provenance
    measured = plain == Provenance.MEASURED
    assert measured[:80].mean() > 0.3 and 0.3 < measured[80:].mean() < 1
    expected = np.where(measured, Provenance.OUT_OF_RANGE, plain)
    assert np.array_equal(estimate.provenance[:40], expected[:40])
    # Too far is free space, so it needs texture of its own, not that of a window's other end.
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(measured, 7, mode="edge"), (15, 15))
    expected[measured & ~windows.all((2, 3))] = Provenance.TEXTURELESS
    assert np.array_equal(estimate.provenance[40:73], expected[40:73])
    assert (estimate.provenance[40:80] == Provenance.OUT_OF_RANGE).mean() > 0.05
    backend.sigma = 10 * lens.disparity_gain_px_m
    unsure = DualPixelEstimator(backend, options).estimate(frame)
    assert np.isnan(unsure.depth_m[80:]).all()
    expected = np.where(measured, Provenance.NONE, plain)
    assert np.array_equal(unsure.provenance[80:], expected[80:]), "a blank wall stays the cause"
    assert not (unsure.depth_m == 0).any()


def test_without_a_lens_nothing_is_metric(frame: DualPixelFrame,
                                          estimator: DualPixelEstimator) -> None:
    estimate = estimator.estimate(replace(frame, lens=None))
    assert estimate.scale_state is ScaleState.RELATIVE
    assert np.isnan(estimate.depth_m).all()
    assert np.isnan(estimate.sigma_m).all()
    assert np.isfinite(estimate.relative_inverse_depth()).all()


def test_swapped_and_transposed_inputs_give_the_same_depth(
    frame: DualPixelFrame, estimator: DualPixelEstimator
) -> None:
    reference = estimator.estimate(frame)
    swapped = DualPixelEstimator(estimator.backend, replace(estimator.options, swap_views=True))
    exchanged = replace(frame, left=frame.right, right=frame.left)
    assert np.array_equal(swapped.estimate(exchanged).disparity_px, reference.disparity_px)
    assert frame.rgb is not None
    vertical = DualPixelEstimator(estimator.backend,
                                  replace(estimator.options, parallax_axis="y"))
    turned = vertical.estimate(replace(
        frame, left=frame.left.T.copy(), right=frame.right.T.copy(),
        rgb=frame.rgb.transpose(1, 0, 2).copy(),
        intrinsics=replace(frame.intrinsics, width_px=120, height_px=160)))
    assert np.allclose(turned.disparity_px.T, reference.disparity_px, atol=1e-5)


def test_rgb_of_another_size_sets_the_output_grid(
    frame: DualPixelFrame, estimator: DualPixelEstimator
) -> None:
    assert frame.rgb is not None
    large = frame.rgb.repeat(2, 0).repeat(2, 1)
    estimate = estimator.estimate(replace(frame, rgb=large,
                                          intrinsics=frame.intrinsics.resized(320, 240)))
    assert estimate.depth_m.shape == (240, 320)
    small = estimator.estimate(frame)
    both = np.isfinite(estimate.depth_m[1::2, 1::2]) & np.isfinite(small.depth_m)
    assert np.median(np.abs(estimate.depth_m[1::2, 1::2] - small.depth_m)[both]) < 0.05


def test_eight_bit_srgb_views_are_decoded(frame: DualPixelFrame) -> None:
    backend = FixedBackend(np.zeros((120, 160)))
    linear = np.tile(np.linspace(0.05, 0.9, 160, dtype=np.float32), (120, 1))
    encoded = ((1.055 * linear ** (1 / 2.4) - 0.055) * 255).round().astype(np.uint8)
    DualPixelEstimator(backend, DualPixelOptions(linear_input=False)).estimate(
        replace(frame, left=encoded, right=encoded))
    assert backend.seen is not None
    assert np.allclose(backend.seen.left[0, 0, :120, :160], np.sqrt(linear), atol=4e-3)


@pytest.mark.parametrize(
    ("change", "cause"),
    [(lambda f: replace(f, left=f.left[:-1]), "size_mismatch"),
     (lambda f: replace(f, left=f.left.astype(np.float32)), "size_mismatch"),
     (lambda f: replace(f, left=f.left.astype(np.int32), right=f.right.astype(np.int32)),
      "bad_dtype"),
     (lambda f: replace(f, left=f.left[:20], right=f.right[:20]), "too_small"),
     (lambda f: replace(f, rgb=f.rgb[:-2]), "size_mismatch"),
     (lambda f: replace(f, left=np.full(f.left.shape, np.nan, np.float32),
                        right=f.right.astype(np.float32)), "nan_image"),
     (lambda f: replace(f, left=np.zeros_like(f.left), right=np.zeros_like(f.right)),
      "constant_image")],
)
def test_bad_frames_are_refused_with_their_cause(
    frame: DualPixelFrame, estimator: DualPixelEstimator, change: object, cause: str
) -> None:
    with pytest.raises(InvalidFrameError) as error:
        estimator.estimate(change(frame))  # type: ignore[operator]
    assert error.value.cause == cause
    assert len(str(error.value)) > 30, "the text names value, rule and remedy"


def test_warm_up_runs_without_a_lens(estimator: DualPixelEstimator) -> None:
    estimator.warm_up(64, 48, 1)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"depth\.min_m"):
        DualPixelOptions(min_depth_m=5, max_depth_m=1)
    with pytest.raises(ValueError, match="parallax_axis"):
        DualPixelOptions(parallax_axis="z")


def test_lens_pitch_belongs_to_the_dual_pixel_grid() -> None:
    """Binning by two halves the disparity in px, and the same metres come out."""
    fine = ThinLens(0.012, 2.0, 13.8e-6, 1.0)
    coarse = replace(fine, pixel_pitch_m=27.6e-6)
    assert fine.disparity_px(0.5) == pytest.approx(2 * coarse.disparity_px(0.5))
