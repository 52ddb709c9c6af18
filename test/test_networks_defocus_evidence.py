"""Closed-form evidence through a known lens: exact where its model holds, silent where it knows
nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from disc_sweeps import FOCUS, HEIGHT, WIDTH, disc_blurred, encoded, frequencies, sweep
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from depth_fusion_ros.estimation.sweep_measurement import measure_sweep
from depth_fusion_ros.networks.defocus_evidence import (
    WINDOWS_CELLS,
    DefocusEvidence,
    defocus_evidence,
    disc_transfer,
)
from depth_fusion_ros.networks.evidence import box, box_of_many, scatter
from depth_fusion_ros.networks.focus_volume import (
    FocusVolume,
    FocusVolumeConfig,
    linear_luminance,
)
from depth_fusion_ros.optics.shape_from_focus import shape_from_focus

MARGIN = 10
"""Cells at the border that are not looked at: blur comes from outside the picture there."""
INNER = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))


def measure(light: Tensor, gain: float, focus: Tensor = FOCUS) -> DefocusEvidence:
    return defocus_evidence(light, focus[None].expand(len(light), -1),
                            torch.full((len(light),), gain))


def test_the_transfer_function_is_that_of_a_disc_drawn_in_space() -> None:
    size, diameter = 64, 9.0
    point = torch.zeros(size, size)
    point[0, 0] = 1.0
    drawn = torch.fft.rfft2(disc_blurred(point, diameter)).real
    formula = disc_transfer(torch.tensor([[[diameter]]]), frequencies(size, size))[0]
    low = frequencies(size, size) < 1.5  # beyond, pixels of the drawn disc are seen
    assert float((drawn - formula)[low].abs().max()) < 0.03
    assert float(disc_transfer(torch.zeros(1, 1, 1), frequencies(8, 8)).min()) > 0.999


@settings(max_examples=12, deadline=None)
@given(diopters=st.floats(0.5, 2.3), blur_span_px=st.floats(2.0, 12.0), seed=st.integers(0, 99))
def test_a_wall_is_found_between_the_slices_at_any_spacing(diopters, blur_span_px, seed) -> None:
    gain = blur_span_px / 2.0  # FOCUS spans two dioptres
    found = measure(sweep(diopters, gain, seed=seed), gain)
    middle = found.diopters[:, 1][INNER]
    assert float((middle - diopters).abs().median()) < 0.15 / gain, "a seventh of a pixel of blur"
    assert bool(found.known[:, 1][INNER].float().mean() > 0.9)


@pytest.mark.parametrize("gain", [3.0, 6.0])
def test_noise_harms_it_much_less_than_the_sharpest_slice(gain) -> None:
    by_peak, by_blur = [], []
    for diopters in (0.6, 1.05, 1.55, 2.05):
        light = sweep(diopters, gain, noise=8e-3)
        peak, _ = shape_from_focus(encoded(light), FOCUS.numpy())
        by_peak.append(np.nanmedian(np.abs(peak[20:-20, 20:-20] - diopters)))
        found = measure(light, gain).diopters[:, 1][INNER]
        by_blur.append(float((found - diopters).abs().median()))
    assert np.mean(by_blur) < np.mean(by_peak) / 2


def test_a_wall_just_beyond_the_sweep_is_found_there() -> None:
    found = measure(sweep(2.5, 4.0), 4.0).diopters[:, 1][INNER]
    assert float(found.median()) == pytest.approx(2.5, abs=0.05)


@pytest.mark.parametrize("gain", [4.0, 8.0])
@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_a_gain_fifteen_percent_wrong_costs_more_than_twice_the_error(gain, factor) -> None:
    right, wrong = (np.mean([
        float((measure(sweep(d, gain), told).diopters[:, 1][INNER] - d).abs().median())
        for d in (0.6, 1.05, 1.55, 2.05)]) for told in (gain, factor * gain))
    assert wrong > 2 * right, "why blur_gain.py checks it"


def test_slices_of_other_brightness_change_nothing() -> None:
    light = sweep(1.2, 4.0)
    gains = torch.tensor([0.8, 1.0, 1.3, 0.9, 1.1])[None, :, None, None]
    plain, flickering = (measure(x, 4.0).diopters for x in (light, light * gains))
    assert float((plain - flickering).abs()[INNER].max()) < 0.03


def test_sigma_covers_the_error_at_any_noise() -> None:
    for noise in (1e-4, 3e-3, 1e-2, 3e-2):
        found = measure(sweep(1.2, 4.0, noise=noise), 4.0)
        for window in range(len(WINDOWS_CELLS)):
            error = (found.diopters[:, window] - 1.2).abs()[INNER]
            known = found.known[:, window][INNER]
            if bool(known.float().mean() > 0.05):
                inside = (error < 2 * found.sigma_diopters[:, window][INNER])[known].float().mean()
                assert float(inside) > 0.9, (noise, window)


@pytest.mark.parametrize("gain", [0.0, -1.0, math.nan, math.inf])
def test_an_unknown_lens_gives_no_evidence_and_does_not_touch_its_neighbour(gain) -> None:
    light = sweep(1.2, 4.0).expand(2, -1, -1, -1)
    found = defocus_evidence(light, FOCUS[None].expand(2, -1), torch.tensor([gain, 4.0]))
    alone = measure(light[:1], 4.0)
    assert not bool(found.known[0].any()) and not bool(found.moments[0].any())
    torch.testing.assert_close(found.diopters[0], torch.full_like(found.diopters[0], 1.4))
    torch.testing.assert_close(found.sigma_diopters[0], torch.full_like(found.diopters[0], 2.0))
    relative = found.relative.view(2, len(FOCUS), HEIGHT // 2, WIDTH // 2)
    assert not bool(relative[0].any())
    torch.testing.assert_close(found.diopters[1], alone.diopters[0], atol=1e-4, rtol=0)


def test_a_blank_wall_is_not_known() -> None:
    generator = torch.Generator().manual_seed(0)
    blank = 0.3 + 2e-3 * torch.randn(1, 5, HEIGHT, WIDTH, generator=generator)
    found = measure(blank, 4.0)
    assert float(found.known.float().mean()) < 0.01
    assert bool(torch.isfinite(found.diopters).all() & torch.isfinite(found.relative).all())


def test_the_slice_focused_nearest_is_the_likeliest() -> None:
    relative = measure(sweep(1.42, 4.0), 4.0).relative
    assert float(relative.max()) <= 0.0
    likeliest = relative.view(len(FOCUS), HEIGHT // 2, WIDTH // 2).argmax(0)[INNER]
    assert float((likeliest == 2).float().mean()) > 0.95


# -- who uses it -----------------------------------------------------------------------------------


def test_light_is_decoded_as_it_was_encoded() -> None:
    light = sweep(1.2, 4.0)
    pixels = torch.from_numpy(encoded(light)).permute(0, 3, 1, 2)[None] / 255.0
    assert float((linear_luminance(pixels) - light.clamp(0, 1)).abs().max()) < 0.006


def test_a_known_lens_measures_better_and_stays_within_the_sweep() -> None:
    focus, errors = FOCUS.numpy(), []
    stack = encoded(sweep(1.05, 4.0, noise=8e-3))
    for gain in (0.0, 4.0):
        found, _ = measure_sweep(stack, focus, gain)
        errors.append(np.nanmedian(np.abs(found[20:-20, 20:-20] - 1.05)))
    assert errors[1] < errors[0] / 2
    beyond, sigma = measure_sweep(encoded(sweep(2.6, 4.0)), focus, 4.0)
    assert np.nanmax(beyond) <= focus[-1]
    assert np.nanmin(sigma[beyond == focus[-1]]) >= (focus[-1] - focus[-2]) / 2


def test_odd_sizes_and_what_only_the_peak_knows_are_kept() -> None:
    stack = encoded(sweep(1.2, 4.0))[:, :-1, :-3]
    found, sigma = measure_sweep(stack, FOCUS.numpy(), 4.0)
    assert found.shape == sigma.shape == (HEIGHT - 1, WIDTH - 3)
    assert np.array_equal(np.isnan(found), np.isnan(sigma))
    peak, _ = shape_from_focus(stack, FOCUS.numpy())
    unknown, _ = measure_sweep(stack, FOCUS.numpy(), math.nan)
    assert np.array_equal(unknown, peak, equal_nan=True)
    assert not np.isnan(found[np.isfinite(peak)]).any()


def test_the_volume_starts_at_what_the_lens_says_and_runs_without_it() -> None:
    torch.manual_seed(0)
    volume = FocusVolume().eval()
    stack = torch.from_numpy(encoded(sweep(1.05, 2.0))).permute(0, 3, 1, 2)[None] / 255.0
    with torch.inference_mode():
        told = volume(stack, FOCUS[None], torch.tensor([2.0]))[0]
        untold, zero = (volume(stack, FOCUS[None], gain)[0] for gain in (None, torch.zeros(1)))
    assert torch.equal(untold, zero)
    errors = [float((d - 1.05).abs()[..., 20:-20, 20:-20].median()) for d in (told, untold)]
    assert errors[0] < 0.05 and errors[0] < errors[1]


def test_a_volume_that_uses_the_lens_needs_the_step_that_joins_both() -> None:
    with pytest.raises(ValueError, match="defocus = True with evidence = False"):
        FocusVolumeConfig(evidence=False)


def test_a_pattern_that_never_blurs_lies_at_no_depth() -> None:
    generator = torch.Generator().manual_seed(0)
    pattern = 0.3 * (1 + 0.02 * torch.randn(1, 1, HEIGHT, WIDTH, generator=generator))
    noise = 5e-4 * torch.randn(1, len(FOCUS), HEIGHT, WIDTH, generator=generator)
    for gain in (1.0, 8.0):
        found = measure(pattern + noise, gain)
        assert float(found.known.float().mean()) < 0.01


@pytest.mark.parametrize("size", [3, 5, 11])
def test_means_of_many_maps_are_those_of_the_box(size: int) -> None:
    maps = torch.rand(2, 4, 13, 18, generator=torch.Generator().manual_seed(size))
    assert torch.allclose(box_of_many(maps, size), box(maps, size), atol=1e-6)


def test_scatter_is_the_deviation_of_what_is_known_and_of_nothing_else() -> None:
    values = torch.full((1, 1, 20, 24), 3e3)
    values[..., ::2] += 0.5  # two values half a unit apart: a deviation of a quarter
    known = torch.ones_like(values, dtype=torch.bool)
    values[..., 3, :], known[..., 3, :] = 1e6, False
    assert float((scatter(values, known, 7)[..., 4:-4] - 0.25).abs().max()) < 0.01
    assert float(scatter(values, ~torch.ones_like(known), 7).max()) == 0.0


def patches(diopters: tuple[float, ...], gain: float, side: int = 8) -> Tensor:
    """What lasting noise on a blank wall looks like: here and there texture, of any depth."""
    walls = torch.cat([sweep(d, gain, seed=n) for n, d in enumerate(diopters)])
    pick = torch.randint(len(walls), (HEIGHT // side, WIDTH // side),
                         generator=torch.Generator().manual_seed(3))
    pick = pick.repeat_interleave(side, 0).repeat_interleave(side, 1)
    rows, columns = torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)
    return torch.stack([walls[pick, n, rows, columns] for n in range(len(FOCUS))])[None]


def test_answers_that_vary_from_place_to_place_are_not_believed_as_they_claim() -> None:
    of_patches = measure(patches((0.6, 1.2, 1.8, 2.2), 4.0), 4.0)
    of_wall = measure(sweep(1.2, 4.0), 4.0)
    claimed, sure = (e.moments[:, 0][INNER].mean() for e in (of_patches, of_wall))
    assert float(claimed) < 0.05 * float(sure)
    sigma = of_patches.sigma_diopters[:, :1][of_patches.known[:, :1]]
    assert float(sigma.median()) > 0.1 * float(FOCUS[-1] - FOCUS[0])


def test_what_is_no_surer_than_a_guess_over_the_sweep_is_not_called_measured() -> None:
    volume = FocusVolume().eval()
    shares = []
    for light in (patches((0.5, 2.3), 4.0), sweep(1.2, 4.0)):
        stack = torch.from_numpy(encoded(light)).permute(0, 3, 1, 2)[None] / 255.0
        with torch.inference_mode():
            output = volume.forward_full(stack, FOCUS[None], torch.tensor([4.0]))
        shares.append(float(torch.isfinite(output.measured[..., 20:-20, 20:-20]).float().mean()))
    # Of two depths, neighbouring patches have the same here and there.
    assert shares[0] < 0.3 and shares[1] > 0.99
