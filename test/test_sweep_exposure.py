"""What happens to training sweeps between the renderer and the network, one thing at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.training.sweep_data import focus_positions
from depth_fusion_ros.training.sweep_exposure import (
    LEFT_OVER_PX,
    LEFT_OVER_SCALE,
    MOST_BREATHING,
    MOST_DRIFT_PX,
    displaced,
    draw_motion,
    lasting_noise,
)

SEEDS = st.integers(0, 2**31 - 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(SEEDS, st.booleans())
@settings(deadline=None, max_examples=30)
def test_sweeps_are_even_in_metres_or_in_dioptres_up_to_half_a_step(seed: int, metric: bool
                                                                    ) -> None:
    near, far = torch.full((20,), 0.4), torch.full((20,), 5.0)
    focus = focus_positions(near, far, 9, generator(seed), metric_share=float(metric))
    even = 1 / focus.flip(1) if metric else focus
    place = (even - even[:, :1]) / (even[:, -1:] - even[:, :1])
    assert (focus.diff(dim=1) > 0).all()
    assert float((place * 8 - torch.arange(9)).abs().max()) <= 0.2501


def test_about_half_of_the_training_sweeps_are_even_in_metres() -> None:
    near, far = torch.full((400,), 0.3), torch.full((400,), 6.0)
    focus = focus_positions(near, far, 10, generator())
    gaps = focus.diff(dim=1)
    metric = gaps[:, -1] > 3 * gaps[:, 0]
    assert 0.4 < float(metric.float().mean()) < 0.6


@given(SEEDS, st.integers(2, 10))
@settings(deadline=None, max_examples=30)
def test_alignment_brings_slices_back_up_to_what_it_leaves_over(seed: int, count: int) -> None:
    focus = torch.linspace(0.2, 4.0, count).expand(16, -1)
    motion = draw_motion(focus, torch.ones(16, 1), generator(seed))
    undone_px, undone_scale = motion.undone
    # What `displaced` says of one after the other: scale · (undone scale · p + undone) + shift.
    scale = motion.scale * undone_scale
    shift_px = motion.scale[..., None] * undone_px + motion.shift_px
    assert float((scale - 1).abs().max()) <= LEFT_OVER_SCALE + 1e-5
    assert float(shift_px.abs().max()) <= LEFT_OVER_PX + LEFT_OVER_SCALE * MOST_DRIFT_PX + 1e-5
    assert float((1 / undone_scale - 1).abs().max()) <= MOST_BREATHING + 1e-5
    untouched = (undone_scale == 1) & (undone_px == 0).all(-1)
    assert untouched.any(1).all(), "every sweep has a reference that is not resampled"


def test_breathing_and_drift_are_played_for_a_share_and_never_for_still_sweeps() -> None:
    focus = torch.linspace(0.2, 4.0, 6).expand(300, -1)
    lively = (torch.arange(300) % 2).float()[:, None]
    motion = draw_motion(focus, lively, generator())
    resampled = (motion.undone[1] != 1).any(1)
    still = lively[:, 0] == 0
    assert not resampled[still].any()
    assert (motion.shift_px[still] == 0).all() and (motion.scale[still] == 1).all()
    assert 0.45 < float(resampled[~still].float().mean()) < 0.75
    # A lens breathes along the sweep, one way: its scales rise or fall with focus.
    scales = 1 / motion.undone[1][resampled]
    steps = scales.diff(dim=1)
    assert ((steps >= 0).all(1) | (steps <= 0).all(1)).all()


def test_what_was_displaced_comes_back_and_what_was_not_is_untouched() -> None:
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    picture = 0.5 + 0.2 * torch.sin(x / 7) * torch.cos(y / 9)
    stack = picture.expand(1, 3, 3, -1, -1).contiguous()
    shift = torch.tensor([[[0.0, 0.0], [2.5, -1.5], [0.0, 0.0]]])
    scale = torch.tensor([[1.0, 1.06, 0.94]])
    taken = displaced(stack, shift, scale)
    assert torch.equal(taken[:, 0], stack[:, 0])
    assert float((taken[:, 1:] - stack[:, 1:]).abs().amax()) > 0.1
    back = displaced(taken, -shift / scale[..., None], 1 / scale)
    assert float((back - stack)[..., 12:-12, 12:-12].abs().amax()) < 0.003


def test_a_positive_shift_shows_what_lay_to_the_right() -> None:
    stack = torch.zeros(1, 1, 3, 9, 9)
    stack[..., 4, 6] = 1
    moved = displaced(stack, torch.tensor([[[2.0, 0.0]]]), torch.ones(1, 1))
    assert float(moved[0, 0, 0, 4, 4]) == pytest.approx(1)


def test_resampled_slices_have_less_noise_than_the_others() -> None:
    noise = 0.5 + 0.1 * torch.randn(1, 2, 3, 96, 128, generator=generator())
    out = displaced(noise, torch.zeros(1, 2, 2), torch.tensor([[1.0, 0.93]]))
    # Cubic weights (a = -0.75) at phase t, over all phases and both axes: rms of their norms.
    t = (torch.arange(1000) + 0.5) / 1000
    near, a = torch.stack([t, 1 - t]), -0.75
    inner = (a + 2) * near**3 - (a + 3) * near**2 + 1
    outer = a * (1 + near)**3 - 5 * a * (1 + near)**2 + 8 * a * (1 + near) - 4 * a
    left = float((inner**2 + outer**2).sum(0).mean())
    assert left < 0.9
    assert float(out[:, 1].std() / out[:, 0].std()) == pytest.approx(left, abs=0.02)


def test_lasting_noise_is_alike_by_what_it_is_told_and_as_strong_everywhere() -> None:
    told = torch.tensor([[0.9, 0.1, 0.5]])
    noise = lasting_noise(torch.Size((1, 4, 3, 128, 128)), told, generator())[0].flatten(1)
    measured = torch.corrcoef(noise)
    assert torch.allclose(measured.diagonal(1), told[0], atol=0.02)
    assert float(measured[0, 3]) == pytest.approx(0.9 * 0.1 * 0.5, abs=0.02)
    assert torch.allclose(noise.std(1), torch.ones(4), atol=0.02)
