"""Planes through surroundings: what they carry over, and what stops them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.networks.attention_fusion import AttentionFusion, AttentionFusionConfig
from depth_fusion_ros.networks.local_planes import CELL_PX, LocalPlanes, local_planes

SIZE_PX = 64
GREY = torch.full((1, 3, SIZE_PX, SIZE_PX), 0.5)


def plane(level: float, slope_x: float, slope_y: float) -> torch.Tensor:
    """Inverse depth of a plane, dioptres: at the image's centre, and slopes per image size."""
    at = (torch.arange(SIZE_PX) + 0.5) / SIZE_PX - 0.5
    return (level + slope_x * at + slope_y * at[:, None])[None, None]


def half_measured(truth: torch.Tensor, wrong_by: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Left half sure and right, right half off by `wrong_by` with a σ that admits it."""
    measured, sigma = truth.clone(), torch.full_like(truth, 0.01)
    measured[..., SIZE_PX // 2:] += wrong_by
    sigma[..., SIZE_PX // 2:] = 0.3
    return measured, sigma


@given(level=st.floats(0.3, 4.0), slope_x=st.floats(-1.5, 1.5), slope_y=st.floats(-1.5, 1.5))
@settings(max_examples=40, deadline=None)
def test_a_plane_is_its_own_fit_at_every_pixel(level: float, slope_x: float, slope_y: float
                                               ) -> None:
    truth = plane(level, slope_x, slope_y)
    found = local_planes(truth, torch.full_like(truth, 0.05), GREY).diopters
    # The ridge levels slopes a little: by a hundredth of the image's range at most.
    assert torch.allclose(found, truth, atol=0.01 * (abs(slope_x) + abs(slope_y)) + 1e-4)


@given(level=st.floats(0.5, 3.0), slope_x=st.floats(-0.5, 0.5), slope_y=st.floats(-0.5, 0.5),
       wrong_by=st.floats(-0.3, 0.3))
@settings(max_examples=40, deadline=None)
def test_a_wall_that_is_measured_on_one_side_is_known_beside_it(
    level: float, slope_x: float, slope_y: float, wrong_by: float
) -> None:
    truth = plane(level, slope_x, slope_y)
    measured, sigma = half_measured(truth, wrong_by)
    beside = slice(SIZE_PX // 2, 3 * SIZE_PX // 4)
    found = local_planes(measured, sigma, GREY)
    error = (found.diopters - truth)[..., beside].abs().mean()
    assert float(error) < 0.03 + 0.1 * abs(wrong_by)
    assert float(found.sigma[..., beside].mean()) < 0.15, "surer than the 0.3 of before"


@pytest.mark.parametrize("edge", ["colour", "depth"])
def test_nothing_is_carried_over_an_edge(edge: str) -> None:
    measured, sigma = half_measured(plane(1.0, 0.0, 0.0), 0.2)
    picture = GREY.clone()
    if edge == "colour":
        picture[..., SIZE_PX // 2:] = 0.8
    else:
        measured[..., SIZE_PX // 2:] += 2.0
    right = slice(SIZE_PX // 2, SIZE_PX)
    found = local_planes(measured, sigma, picture)
    assert torch.allclose(found.diopters[..., right], measured[..., right], atol=0.01)
    assert float(found.sigma[..., right].min()) > 0.1


def test_a_cell_unlike_all_others_keeps_its_value_and_gains_no_certainty() -> None:
    measured, sigma = plane(1.0, 0.0, 0.0), torch.full((1, 1, SIZE_PX, SIZE_PX), 0.05)
    picture = GREY.clone()
    cell = (..., slice(32, 32 + CELL_PX), slice(32, 32 + CELL_PX))
    measured[cell], picture[cell] = 3.0, 1.0
    found = local_planes(measured, sigma, picture)
    assert torch.allclose(found.diopters[cell], torch.tensor(3.0), atol=1e-3)
    assert float(found.sigma[cell].min()) > 0.05


def test_planes_do_not_depend_on_what_else_is_in_the_batch_nor_on_the_level() -> None:
    generator = torch.Generator().manual_seed(3)
    d = 1 + torch.rand(2, 1, SIZE_PX, SIZE_PX, generator=generator) / 5
    sigma = 0.02 + torch.rand(d.shape, generator=generator) / 5
    picture = torch.rand(2, 3, SIZE_PX, SIZE_PX, generator=generator) / 10
    both: LocalPlanes = local_planes(d, sigma, picture)
    alone = local_planes(d[1:], sigma[1:], picture[1:])
    higher = local_planes(d + 4, sigma, picture)
    assert torch.allclose(alone.diopters, both.diopters[1:], atol=1e-6)
    assert torch.allclose(higher.diopters - 4, both.diopters, atol=1e-4)
    assert torch.allclose(higher.sigma, both.sigma, rtol=1e-3)


def test_sizes_that_do_not_fit_are_refused_with_the_remedy() -> None:
    d = plane(1.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="must have one size"):
        local_planes(d, d[..., :60], GREY)
    with pytest.raises(ValueError, match=r"multiple of 4; pad"):
        local_planes(d[..., :62, :], d[..., :62, :], GREY[..., :62, :])


def test_a_fresh_fusion_takes_the_plane_where_focus_is_unsure_and_itself_where_it_is_sure() -> None:
    truth = plane(1.5, 0.4, -0.3)
    measured, sigma = half_measured(truth, 0.3)
    useless = torch.rand(truth.shape, generator=torch.Generator().manual_seed(5))
    errors = {}
    for planes in (False, True):
        torch.manual_seed(0)
        network = AttentionFusion(AttentionFusionConfig(planes=planes)).eval()
        with torch.inference_mode():
            fused = network(measured, sigma, useless, GREY)
        errors[planes] = (fused.diopters - truth).abs()
        beside = fused.plane_share[..., SIZE_PX // 2:3 * SIZE_PX // 4]
        assert float(beside.mean()) > 0.8 if planes else float(beside.max()) == 0
    blank = slice(SIZE_PX // 2, 3 * SIZE_PX // 4)
    assert float(errors[True][..., blank].mean()) < 0.5 * float(errors[False][..., blank].mean())
    assert float(errors[True][..., :SIZE_PX // 2].mean()) < 0.02
