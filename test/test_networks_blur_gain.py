"""How wide a lens blurs is read from its sweep, or said to be unknown."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from disc_sweeps import FOCUS, HEIGHT, WIDTH, encoded, sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.estimation.sweep_measurement import sweep_blur_gain
from depth_fusion_ros.networks.blur_gain import WRONG_BY, measured_blur_gain


@settings(max_examples=8, deadline=None)
@given(diopters=st.floats(0.6, 2.2), gain=st.floats(1.5, 8.0), noise=st.floats(1e-4, 4e-3),
       seed=st.integers(0, 99))
def test_the_gain_is_found_whatever_was_told(diopters, gain, noise, seed) -> None:
    light = sweep(diopters, gain, noise=noise, seed=seed)[0]
    for told in (0.0, 0.6 * gain, 1.8 * gain):
        assert measured_blur_gain(light, FOCUS, told) == pytest.approx(gain, rel=0.1), told


def test_a_told_gain_that_agrees_is_kept_to_the_last_digit() -> None:
    light = sweep(1.2, 4.0)[0]
    for told in (3.8, 4.0, 4.2):
        assert measured_blur_gain(light, FOCUS, told) == told
    assert measured_blur_gain(light, FOCUS, 4.0 * WRONG_BY * 1.1) == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("times", [1e3, 1e-3, 1e30, 1e-30])
def test_millimetres_for_metres_do_not_mislead(times) -> None:
    light = sweep(1.2, 4.0, noise=2e-3)[0]
    assert measured_blur_gain(light, FOCUS, 4.0 * times) == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("told", [0.0, -2.0, math.nan, math.inf, 3.0])
def test_a_blank_wall_cannot_contradict_and_tells_nothing(told) -> None:
    generator = torch.Generator().manual_seed(0)
    blank = 0.3 + 2e-3 * torch.randn(5, HEIGHT, WIDTH, generator=generator)
    assert measured_blur_gain(blank, FOCUS, told) == (3.0 if told == 3.0 else 0.0)


@pytest.mark.parametrize("slices", [1, 2])
def test_two_slices_are_not_enough(slices) -> None:
    light = sweep(1.2, 4.0)[0, :slices]
    assert measured_blur_gain(light, FOCUS[:slices], 0.0) == 0.0
    assert measured_blur_gain(light, FOCUS[:slices], 2.5) == 2.5


def test_units_of_focus_need_not_be_dioptres() -> None:
    light = sweep(1.2, 4.0)[0]
    assert measured_blur_gain(light, FOCUS * 100, 0.0) == pytest.approx(0.04, rel=0.1)


def test_slices_as_a_camera_gives_them_are_measured() -> None:
    stack = encoded(sweep(1.2, 4.0, noise=2e-3))
    assert sweep_blur_gain(stack, FOCUS.numpy(), 0.0) == pytest.approx(4.0, rel=0.1)
    small = np.ascontiguousarray(stack[:, :33, :35])
    assert sweep_blur_gain(small, FOCUS.numpy(), 7.0) >= 0.0
