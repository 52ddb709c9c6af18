"""Closed-form evidence of a focus sweep through a known lens: which depth explains every slice?

A focus measure (`focus_evidence.py`) asks where a pixel is sharpest, and knows no lens. Where the
lens is known, a depth Z says how wide each slice blurs there: a disc of diameter K·|g_i − 1/Z| px,
g_i the focus in dioptres and K the blur gain. For every candidate depth the one sharp picture that
explains all slices best is found in closed form, blurred again as each slice would blur it, and
compared with the slices:

    S = Σ_i H_i·X_i / (Σ_i H_i² + noise/signal),   residual² = Σ_i |X_i − H_i·S|²

per spatial frequency, H_i the disc's transfer function. Summed over a window, the residual is
least at the true depth; every slice takes part, not only the three about the peak, so that sweeps
whose blur changes by a fraction of a pixel from slice to slice still tell depth, and depths just
beyond the sweep's ends are found too.

What never blurs lies at no depth: pixels of unequal gain, dust, noise that a camera's filter in
time has made alike. A pattern that is the same in all slices therefore stands beside every depth as
another explanation; where it explains as much, no depth is known.

Sources: for two images, S by a Wiener filter and depth by what it leaves unexplained are those of
Zhou, Lin and Nayar, ICCV 2009; what no picture explains, as a projection, is Favaro and Soatto,
PAMI 2005. Ours are sweeps of any length, the scale-free likelihood (residual² of unknown variance:
Student's), its σ, and the pattern. Constants were chosen on simulated rooms
(`simulation/rooms.py`), not on any evaluation set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from depth_fusion_ros.networks.evidence import box, box_of_many, scatter

CANDIDATES = 32
MARGIN_SHARE = 0.1
"""Candidates reach so far beyond the sweep's ends, as a share of its range."""
WINDOWS_CELLS = (3, 5, 11)
"""Sides of the windows over which the residual is averaged, cells of 2 px."""
BORDER_PX = 16
NOISE_TO_SIGNAL = 1e-3
"""At `MIDDLE_FREQUENCY`; a picture's power falls with the square of the frequency."""
SMOOTHING = 0.02
"""Frequencies f are weighted by 1/(1 + this·(f/`MIDDLE_FREQUENCY`)²)."""
MIDDLE_FREQUENCY = 0.5
"""rad/px."""
DARK = 0.03
"""Added to the light by which residuals are divided: bright parts have more noise and contrast."""
ROUNDING_VARIANCE = 1e-5
"""Residual², relative to the light's, below which a fit does not become better."""
TEMPERATURES = (14.0, 30.0, 110.0)
"""For each window, by how much its pixels are fewer than they seem: neighbours are alike, and
lenses are not quite discs."""
SCATTER_CELLS = (9, 9, 21)
"""For each window: σ counts what its answers scatter within so many cells."""
RADII = 4096
"""Frequencies at which discs' transfer functions are computed; the others take the nearest."""
KNOWN_SHARE = 0.2
"""σ of this share of the sweep's range, and nothing is known."""
SURE_SHARE = 0.01
"""σ of this share has the weight 1."""


@dataclass(frozen=True)
class DefocusEvidence:
    """Evidence at half resolution, W = len(`WINDOWS_CELLS`).

    Attributes:
        diopters: (B, W, H/2, W/2) inverse depth that explains the slices best; the middle of the
            sweep where none stands out or the lens is not known. sigma_diopters: its σ, same
            shape; the sweep's whole range there.
        known: (B, W, H/2, W/2) bool, one stands out.
        moments: (B, 2, H/2, W/2) weight (in 0..1) of each cell's own answer, and weight·dioptres.
        relative: (B·N, 1, H/2, W/2) ≤ 0, log-likelihood ratio of the depth on which each slice is
            focused against the best depth; 0 where the lens is not known.
    """

    diopters: Tensor
    sigma_diopters: Tensor
    known: Tensor
    moments: Tensor
    relative: Tensor


@torch.no_grad()
def defocus_evidence(light: Tensor, focus_diopters: Tensor, blur_gain_px_m: Tensor
                     ) -> DefocusEvidence:
    """Measure a sweep through a known lens.

    Args:
        light: (B, N, H, W) linear luminance ≥ 0, aligned; H and W even. Slices may differ in
            brightness by a factor.
        focus_diopters: (B, N) rising, N ≥ 2.
        blur_gain_px_m: (B,) K = aperture diameter · focal length in px: the diameter of the circle
            of confusion per dioptre out of focus. ≤ 0 or NaN = not known.
    """
    batch, count, height, width = light.shape
    lens_known = torch.isfinite(blur_gain_px_m) & (blur_gain_px_m > 0)
    gain = torch.where(lens_known, blur_gain_px_m, torch.ones_like(blur_gain_px_m))
    low, high = focus_diopters[:, :1], focus_diopters[:, -1:]
    whole = (high - low).clamp_min(1e-3)
    first = (low - MARGIN_SHARE * whole).clamp_min(0.0)
    step = (high + MARGIN_SHARE * whole - first) / (CANDIDATES - 1)
    candidates = first + step * torch.arange(CANDIDATES, device=light.device)  # (B, K)
    residual, of_pattern = unexplained(light, focus_diopters, gain, candidates)

    middle = ((low + high) / 2)[:, :, None, None]
    range_, known_here = whole[:, :, None, None], lens_known[:, None, None, None]
    found, sigmas, seen = [], [], []
    relative = residual.new_zeros(batch, count, height // 2, width // 2)
    for index, (side, temperature) in enumerate(zip(WINDOWS_CELLS, TEMPERATURES, strict=True)):
        freedom = 4 * side * side * (count - 1) / temperature
        likelihood, pattern = (
            -0.5 * freedom * torch.log(box_of_many(each, side) + ROUNDING_VARIANCE)
            for each in (residual, of_pattern))
        likelihood = torch.logaddexp(likelihood, pattern)
        diopters, sigma = _peak_with_sigma(likelihood, candidates, step)
        known = (sigma < KNOWN_SHARE * range_) & known_here
        sigma = torch.hypot(sigma, scatter(diopters, known, SCATTER_CELLS[index]))
        found.append(torch.where(known, diopters, middle))
        sigmas.append(torch.where(known, torch.minimum(sigma, range_), range_))
        seen.append(known)
        if index == 1:
            ratio = _at_slices(likelihood, candidates, focus_diopters, step)
            relative = torch.where(known_here, ratio - likelihood.amax(1, keepdim=True), relative)
    weight = ((SURE_SHARE * range_ / sigmas[0]) ** 2).clamp_max(1.0) * seen[0]
    return DefocusEvidence(
        torch.cat(found, 1), torch.cat(sigmas, 1), torch.cat(seen, 1),
        torch.cat([weight, weight * found[0]], 1),
        relative.reshape(batch * count, 1, height // 2, width // 2))


def disc_transfer(diameter_px: Tensor, frequency: Tensor) -> Tensor:
    """Transfer function of a uniform disc: 2·J1(a)/a with a = frequency·diameter/2.

    Args:
        diameter_px: (…, 1, 1) ≥ 0. frequency: (h, w) rad/px.

    Returns:
        (…, h, w) in −0.14..1.
    """
    a = (frequency * (diameter_px / 2)).clamp_min(1e-3)
    transfer: Tensor = 2 * torch.special.bessel_j1(a) / a
    return transfer


def unexplained(light: Tensor, focus: Tensor, gain: Tensor, candidates: Tensor
                ) -> tuple[Tensor, Tensor]:
    """What no picture explains, squared and summed over slices, (B, K, H/2, W/2) and (B, 1, …).

    In units of what white noise of variance 1 would leave. The second: what no pattern explains
    that is alike in every slice.

    Args:
        light, focus: as of `defocus_evidence`. gain: (B,) px·m > 0. candidates: (B, K) dioptres.
    """
    count, height, width = light.shape[1:]
    brightness = light.mean((2, 3), keepdim=True).clamp_min(1e-6)
    light = light * (brightness.mean(1, keepdim=True) / brightness)
    local = box(light.mean(1, keepdim=True), 7) + DARK
    bottom, right = BORDER_PX + height % 2, BORDER_PX + width % 2
    padded = F.pad(light, (BORDER_PX, right, BORDER_PX, bottom), mode="reflect")
    size = padded.shape[-2:]
    along_y = torch.fft.fftfreq(size[0], device=light.device) * 2 * math.pi
    along_x = torch.fft.rfftfreq(size[1], device=light.device) * 2 * math.pi
    frequency = torch.hypot(along_y[:, None], along_x[None])
    squared = (frequency / MIDDLE_FREQUENCY) ** 2
    noise_to_signal = NOISE_TO_SIGNAL * squared.clamp_min(1e-3)
    weight = 1 / (1 + SMOOTHING * squared)
    spectrum = torch.view_as_real(torch.fft.rfft2(padded) * weight)
    inside = (..., slice(BORDER_PX, BORDER_PX + height), slice(BORDER_PX, BORDER_PX + width))
    scale = 1 / local**2

    def pooled(rest: Tensor, of_noise: Tensor | float) -> Tensor:
        left = torch.fft.irfft2(torch.view_as_complex(rest), s=size)
        energy = left.square_().sum(1, keepdim=True)[inside] * scale
        rows = energy[..., ::2, :] + energy[..., 1::2, :]
        cells: Tensor = (rows[..., ::2] + rows[..., 1::2]) / (4 * of_noise)
        return cells

    radii = torch.linspace(0, float(frequency.max()), RADII, device=light.device)
    nearest = (frequency / radii[1]).round().long().flatten().expand(*focus.shape, -1)
    rows = []
    for candidate in candidates.unbind(1):
        diameter = (focus - candidate[:, None]).abs() * gain[:, None]
        of_radii = disc_transfer(diameter[:, :, None, None], radii[None]).squeeze(2)
        transfer = of_radii.gather(2, nearest).unflatten(2, frequency.shape)
        power = (transfer * transfer).sum(1, keepdim=True) + noise_to_signal
        picture = (transfer[..., None] * spectrum).sum(1, keepdim=True) / power[..., None]
        rest = torch.addcmul(spectrum, transfer[..., None], picture, value=-1)
        # Of noise alone, sharper slices explain more: that must not pass for evidence.
        missed = noise_to_signal / power
        of_noise = ((count - 1 + missed**2) * weight**2).mean((2, 3), keepdim=True)
        rows.append(pooled(rest, of_noise))
    alike = spectrum - spectrum.mean(1, keepdim=True)
    return torch.cat(rows, 1), pooled(alike, float((count - 1) * (weight**2).mean()))


def _peak_with_sigma(likelihood: Tensor, candidates: Tensor, step: Tensor
                     ) -> tuple[Tensor, Tensor]:
    """Peak of (B, K, h, w) between candidates (B, K), and its σ: (B, 1, h, w) dioptres each."""
    top = likelihood.argmax(1, keepdim=True)
    middle = top.clamp(1, likelihood.shape[1] - 2)
    before, here, after = (likelihood.gather(1, middle + k) for k in (-1, 0, 1))
    bend = (2 * here - before - after).clamp_min(1e-6)
    offset = (0.5 * (after - before) / bend).clamp(-1, 1)
    positions = candidates[:, :, None, None]
    size = step[:, :, None, None]
    place = positions.expand_as(likelihood).gather(1, middle) + offset * size
    share = torch.softmax(likelihood, 1)
    variance = (share * (positions - place) ** 2).sum(1, keepdim=True)
    # Where one candidate has all the weight the parabola is finer than the candidates.
    narrow = size**2 / bend
    of_grid = size**2 / 12
    variance = torch.where(variance < of_grid, torch.minimum(narrow, of_grid), variance)
    return place, variance.sqrt()


def _at_slices(likelihood: Tensor, candidates: Tensor, focus: Tensor, step: Tensor) -> Tensor:
    """(B, K, h, w) between its candidates, where the slices (B, N) are focused: (B, N, h, w)."""
    place = ((focus - candidates[:, :1]) / step).clamp(0, likelihood.shape[1] - 1.001)
    index = place.floor().long()
    share = (place - index)[:, :, None, None]
    rows = index[:, :, None, None].expand(-1, -1, *likelihood.shape[2:])
    return likelihood.gather(1, rows) * (1 - share) + likelihood.gather(1, rows + 1) * share
