"""Thin-lens image formation in dioptres and pixels of signed blur.

Conventions, the same everywhere in the package:

* a *dioptre* is 1/Z in 1/m; Z is metres along the optical axis from the entrance pupil;
* the signed circle of confusion ``c(Z) = A · (1/g − 1/Z)`` is a diameter in pixels: negative
  nearer than the focus plane, positive beyond it, zero on it;
* dual-pixel disparity is ``d = x_right − x_left = κ · c(Z)``; with ``k = κ·A`` in px·m,
  ``d(Z) = k · (1/g − 1/Z)``.

All functions accept Python floats, NumPy arrays and torch tensors alike (plain arithmetic only)
unless they say otherwise.

Sources: thin-lens equation; Garg et al., ICCV 2019 (disparity is affine in inverse depth);
half-disc centroid gap 8r/(3π), elementary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.optics.gain_field import FieldPolynomial, check_gain_field

IDEAL_DUAL_PIXEL_KAPPA = 4.0 / (3.0 * math.pi)
"""κ of ideal half discs: centroid gap 8r/(3π) over the blur diameter 2r (about 0.4244)."""

Quantity = Any  # float, NDArray or torch.Tensor: arithmetic works alike on all three


@dataclass(frozen=True)
class ThinLens:
    """State of a lens and its sensor during one exposure.

    Attributes:
        focal_length_m: focal length f, metres, > 0.
        f_number: N = f / aperture diameter, > 0.
        pixel_pitch_m: pitch of the pixels of the *published* image along the parallax axis
            (after binning), metres, > 0.
        focus_diopters: 1/g, dioptres; 0 means focused at infinity. Must satisfy f·(1/g) < 1.
        kappa: dual-pixel gain κ = disparity / signed blur. Ideal half discs give 0.4244; real
            sensors 0.09 to 0.21 (0.22–0.50 of ideal, measured); calibrate it per camera.
        gain_field: how k varies over the image, relative to the value `kappa` gives at its
            centre: k(u, v) = k·(1 + gain_field). None = k is the same everywhere.
        focus_field: field curvature, dioptres added to `focus_diopters` away from the image's
            centre. None = a flat field.
        focus_sigma_diopters: standard deviation of the focus itself (calibration, and how well
            the lens returns to a position), dioptres, ≥ 0. It is common to all pixels of a frame.
        gain_sigma_ratio: standard deviation of k over k, ≥ 0.

    `disparity_px` and the other scalars are of the image centre; `gain_map_px_m` and
    `focus_map_diopters` follow the fields, and `field_mean` is the one lens that stands for all.

    Raises:
        ValueError: a value is not finite or outside its range; the text names it and the rule.
    """

    focal_length_m: float
    f_number: float
    pixel_pitch_m: float
    focus_diopters: float
    kappa: float = IDEAL_DUAL_PIXEL_KAPPA
    gain_field: FieldPolynomial | None = None
    focus_field: FieldPolynomial | None = None
    focus_sigma_diopters: float = 0.0
    gain_sigma_ratio: float = 0.0

    def __post_init__(self) -> None:
        for name in ("focal_length_m", "f_number", "pixel_pitch_m", "kappa"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(
                    f"lens {name} = {value!r}: must be finite and > 0; "
                    "set it in LensState or in the lens.* parameters"
                )
        if not (math.isfinite(self.focus_diopters) and self.focus_diopters >= 0):
            raise ValueError(
                f"lens focus_diopters = {self.focus_diopters!r}: must be finite and >= 0 "
                "(0 = infinity); check the lens driver or lens.diopter_offset"
            )
        if self.focal_length_m * self.focus_diopters >= 1.0:
            raise ValueError(
                f"lens focus_diopters = {self.focus_diopters!r} with focal_length_m = "
                f"{self.focal_length_m!r}: a lens cannot focus nearer than its focal length; "
                "check the units (1/m and m)"
            )
        for name in ("focus_sigma_diopters", "gain_sigma_ratio"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"lens {name} = {value!r}: must be finite and >= 0 (0 = exact); "
                                 "take it from the calibration")
        if self.gain_field is not None:
            check_gain_field(self.gain_field)

    @property
    def blur_gain_px_m(self) -> float:
        """A = f²/(N·p) / (1 − f/g): pixels of signed blur diameter per dioptre of defocus."""
        return blur_gain_px_m(
            self.focal_length_m, self.f_number, self.pixel_pitch_m, self.focus_diopters
        )

    @property
    def disparity_gain_px_m(self) -> float:
        """k = κ·A: pixels of dual-pixel disparity per dioptre of defocus."""
        return self.kappa * self.blur_gain_px_m

    @property
    def disparity_at_infinity_px(self) -> float:
        """k/g: the largest disparity a scene point can have (Z → ∞)."""
        return self.disparity_gain_px_m * self.focus_diopters

    @property
    def image_distance_m(self) -> float:
        """Lens-to-sensor distance s' = f / (1 − f/g), metres; sets the field of view."""
        return self.focal_length_m / (1.0 - self.focal_length_m * self.focus_diopters)

    @property
    def focal_length_px(self) -> float:
        """Projection constant fx = s'/p, pixels; grows as the lens focuses nearer (breathing)."""
        return self.image_distance_m / self.pixel_pitch_m

    def signed_coc_px(self, depth_m: Quantity) -> Quantity:
        """Signed circle-of-confusion diameter, px; see :func:`signed_coc_px`."""
        return signed_coc_px(depth_m, self.blur_gain_px_m, self.focus_diopters)

    def disparity_px(self, depth_m: Quantity) -> Quantity:
        """Dual-pixel disparity x_right − x_left in px of a point at ``depth_m``."""
        return signed_coc_px(depth_m, self.disparity_gain_px_m, self.focus_diopters)

    def gain_map_px_m(self, width_px: int, height_px: int) -> float | NDArray[np.float32]:
        """k at each pixel of an image of the lens's field, (H, W) px·m; a float where it is one."""
        if self.gain_field is None:
            return self.disparity_gain_px_m
        relative = 1.0 + self.gain_field.on_grid(width_px, height_px)
        return (self.disparity_gain_px_m * relative).astype(np.float32)

    def focus_map_diopters(self, width_px: int, height_px: int) -> float | NDArray[np.float32]:
        """Focus at each pixel, (H, W) dioptres; a float where it is one."""
        if self.focus_field is None:
            return self.focus_diopters
        return self.focus_diopters + self.focus_field.on_grid(width_px, height_px)

    def field_mean(self) -> ThinLens:
        """Return the lens without fields whose k and focus are their means over the image.

        What a network gets that knows one k and one focus per frame.
        """
        if self.gain_field is None and self.focus_field is None:
            return self
        relative = 1.0 + (self.gain_field.mean if self.gain_field else 0.0)
        focus = self.focus_diopters + (self.focus_field.mean if self.focus_field else 0.0)
        mean = replace(self, focus_diopters=max(focus, 0.0), gain_field=None, focus_field=None)
        # κ is found from k: the blur gain depends a little on the focus.
        return replace(mean, kappa=self.disparity_gain_px_m * relative / mean.blur_gain_px_m)

    def refocused(self, focus_diopters: float) -> ThinLens:
        """Return the same lens focused elsewhere (1/m)."""
        return replace(self, focus_diopters=focus_diopters)


def blur_gain_px_m(
    focal_length_m: float, f_number: float, pixel_pitch_m: float, focus_diopters: float
) -> float:
    """A = f²/(N·p) / (1 − f/g) in px·m: signed blur diameter per dioptre of defocus."""
    return (
        focal_length_m**2
        / (f_number * pixel_pitch_m)
        / (1.0 - focal_length_m * focus_diopters)
    )


def diopters(depth_m: Quantity) -> Quantity:
    """1/Z in dioptres; +Inf metres give 0. Zero and negative depths are the caller's error."""
    return 1.0 / depth_m


def signed_coc_px(depth_m: Quantity, gain_px_m: float, focus_diopters: float) -> Quantity:
    """``gain · (1/g − 1/Z)`` in px: blur diameter for gain A, disparity for gain k = κ·A.

    Negative nearer than the focus plane, positive beyond it; NaN stays NaN, +Inf gives gain/g.
    """
    return gain_px_m * (focus_diopters - 1.0 / depth_m)


def inverse_depth_from_disparity(
    disparity_px: Quantity, gain_px_m: float, focus_diopters: float
) -> Quantity:
    """1/Z = 1/g − d/k in dioptres. Zero or negative means "at or beyond infinity"."""
    return focus_diopters - disparity_px / gain_px_m


def depth_from_disparity(
    disparity_px: NDArray[np.floating],
    sigma_px: NDArray[np.floating],
    gain_px_m: float | NDArray[np.floating],
    focus_diopters: float | NDArray[np.floating],
    *,
    min_m: float,
    max_m: float,
    focus_sigma_diopters: float = 0.0,
    gain_sigma_ratio: float = 0.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Metric depth and its standard deviation from disparity, with REP-117 range semantics.

    Args:
        disparity_px: (…) float, x_right − x_left in pixels; NaN = unknown.
        sigma_px: (…) float, one standard deviation of the disparity, px.
        gain_px_m: k = κ·A, px·m, > 0; one number, or an array of the disparity's shape.
        focus_diopters: 1/g, 1/m; one number, or an array of the disparity's shape.
        min_m: depths below are returned as −Inf.
        max_m: depths above (and inverse depths ≤ 0) are returned as +Inf.
        focus_sigma_diopters: σ_F of the focus. gain_sigma_ratio: σ_k/k of the gain.

    Returns:
        depth_m (…) float32 and sigma_m (…) float32, to first order
        σ_Z = Z²·√((σ_d/k)² + σ_F² + (d/k·σ_k/k)²), so Z²·σ_d/k for an exactly known lens;
        sigma is NaN where depth is NaN or ±Inf. NaN in gives NaN out; never 0, never clipped.

    Raises:
        ValueError: gain_px_m is not positive and finite, or not 0 < min_m < max_m.
    """
    lowest, highest = float(np.min(gain_px_m)), float(np.max(gain_px_m))
    if not (lowest > 0 and math.isfinite(highest)):
        raise ValueError(
            f"disparity gain k = {lowest!r} px·m: must be finite and > 0; "
            "check focal length, f-number, pixel pitch, kappa and the gain field"
        )
    if not 0.0 < min_m < max_m:
        raise ValueError(
            f"depth range ({min_m!r}, {max_m!r}) m: needs 0 < min_m < max_m; "
            "set depth.min_m and depth.max_m"
        )
    gain = np.asarray(gain_px_m, dtype=np.float32)
    defocus = np.asarray(disparity_px, dtype=np.float32) / gain
    inverse = np.asarray(focus_diopters - defocus, dtype=np.float32)
    spread = np.asarray(sigma_px, dtype=np.float32) / gain
    if focus_sigma_diopters or gain_sigma_ratio:
        of_lens = focus_sigma_diopters**2 + (gain_sigma_ratio * defocus) ** 2
        spread = np.sqrt(spread**2 + of_lens, dtype=np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (1.0 / inverse).astype(np.float32)
        depth[inverse < 1.0 / max_m] = np.inf
        depth[inverse > 1.0 / min_m] = -np.inf
        sigma = (depth * depth * spread).astype(np.float32)
    sigma[~np.isfinite(depth)] = np.nan
    return depth, sigma


def breathing_scale(
    focus_diopters: float, reference_diopters: float, breathing_per_diopter: float
) -> float:
    """Image magnification of a slice focused at ``focus_diopters`` against the reference slice.

    Camera-file model ``fx(D) = fx0 · (1 + β·D)``: returns fx(D)/fx(D_ref), unitless.

    Raises:
        ValueError: 1 + β·D is not positive for one of the two positions.
    """
    scale = 1.0 + breathing_per_diopter * focus_diopters
    reference = 1.0 + breathing_per_diopter * reference_diopters
    if scale <= 0 or reference <= 0:
        raise ValueError(
            f"breathing_per_diopter = {breathing_per_diopter!r} at {focus_diopters!r} D and "
            f"{reference_diopters!r} D: 1 + beta*D must stay > 0; check the unit (1 per dioptre)"
        )
    return scale / reference


def thin_lens_breathing_per_diopter(focal_length_m: float) -> float:
    """β of an ideal thin lens focused by moving the sensor: s' ≈ f·(1 + f·D), so β ≈ f (1/D)."""
    return focal_length_m
