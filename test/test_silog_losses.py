"""The attention-fusion paper's loss: hand-worked values, what it forgives, what it may not see."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from depth_fusion_ros.training.silog_losses import (
    LAMBDA,
    LOWEST_RATIO,
    laplace_of_known_error,
    log_ratio,
    multi_scale_gradient_loss,
    silog_loss,
)


def everywhere(like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool)


def errors(*shape: int, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_silog_of_two_pixels_is_worked_by_hand() -> None:
    g = torch.tensor([[[[0.1, 0.3]]]])
    # mean 0.2, unbiased variance 2·0.1² / 1 = 0.02
    expected = 10 * math.sqrt(0.02 + 0.15 * 0.04)
    assert float(silog_loss(g, everywhere(g))) == pytest.approx(expected, rel=1e-6)
    assert float(silog_loss(g, everywhere(g), 0.0)) == pytest.approx(10 * math.sqrt(0.06), rel=1e-6)
    assert float(silog_loss(g, everywhere(g), 1.0)) == pytest.approx(10 * math.sqrt(0.02), rel=1e-6)


@pytest.mark.parametrize("lambda_", [0.0, LAMBDA, 1.0])
@pytest.mark.parametrize("constant", [-0.7, 0.4])
def test_a_constant_added_to_log_depth_counts_only_through_one_minus_lambda(
    lambda_: float, constant: float
) -> None:
    g = errors(2, 1, 6, 8)
    before, after = (float(silog_loss(e, everywhere(g), lambda_)) / 10 for e in (g, g + constant))
    grown = (1 - lambda_) * (float(g.mean() + constant) ** 2 - float(g.mean()) ** 2)
    assert after**2 - before**2 == pytest.approx(grown, abs=1e-5)
    if lambda_ == 1.0:
        assert after == pytest.approx(before, rel=1e-4)
    assert float(silog_loss(-g, everywhere(g), lambda_)) / 10 == pytest.approx(before, rel=1e-5)


def test_perfect_costs_nothing_and_has_finite_gradients() -> None:
    g = torch.zeros(1, 1, 4, 4, requires_grad=True)
    for loss in (silog_loss(g, everywhere(g)), multi_scale_gradient_loss(g, everywhere(g))):
        assert float(loss.detach()) == 0.0
        loss.backward()
    assert g.grad is not None and torch.isfinite(g.grad).all()


def test_the_gradient_term_is_blind_to_a_constant_and_sees_a_slope() -> None:
    g = errors(2, 1, 16, 24)
    shifted = multi_scale_gradient_loss(g + 0.9, everywhere(g))
    assert float(shifted) == pytest.approx(float(multi_scale_gradient_loss(g, everywhere(g))),
                                           rel=1e-4)
    slope = 0.01 * torch.arange(16.0).expand(1, 1, 16, 16)
    # Across 0.01, 0.02, 0.04 and 0.08 between neighbours of the four scales, down nothing.
    assert float(multi_scale_gradient_loss(slope, everywhere(slope))) == pytest.approx(
        (0.01 + 0.02 + 0.04 + 0.08) / 2, rel=1e-5)
    assert float(multi_scale_gradient_loss(slope, everywhere(slope), scales=1)) == pytest.approx(
        0.005, rel=1e-5)
    down = slope.transpose(-1, -2)
    assert float(multi_scale_gradient_loss(down, everywhere(down))) == pytest.approx(0.075)


def test_scales_end_where_an_image_has_no_neighbours_left() -> None:
    g = errors(1, 1, 4, 4)
    assert float(multi_scale_gradient_loss(g, everywhere(g), 9)) == pytest.approx(
        float(multi_scale_gradient_loss(g, everywhere(g), 2)))


def test_pixels_without_truth_change_neither_value_nor_gradient() -> None:
    g = errors(1, 1, 8, 8)
    valid = everywhere(g)
    valid[..., :4, :4] = False
    dirty = g.clone()
    dirty[..., :4, :4] = float("nan")
    other = g.clone()
    other[..., :4, :4] = 7.0
    for loss in (silog_loss, multi_scale_gradient_loss):
        values, gradients = [], []
        for error in (g, dirty, other):
            leaf = error.clone().requires_grad_()
            value = loss(leaf, valid)
            value.backward()
            assert leaf.grad is not None
            values.append(float(value.detach()))
            gradients.append(leaf.grad)
        assert values[0] == values[1] == values[2] > 0
        assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
        assert not gradients[0][~valid].any()


def test_a_step_at_the_border_of_the_truth_is_no_gradient() -> None:
    g = torch.zeros(1, 1, 8, 8)
    g[..., 4:] = 5.0
    valid = everywhere(g)
    valid[..., 3:5] = False
    assert float(multi_scale_gradient_loss(g, valid, scales=1)) == 0.0


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pixels_cost_nothing(count: int) -> None:
    g = errors(1, 1, 2, 2).requires_grad_()
    valid = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    valid.view(-1)[:count] = True
    assert float(silog_loss(g, valid).detach()) == 0.0
    assert float(multi_scale_gradient_loss(g, valid).detach()) == 0.0


def test_the_logarithm_goes_on_linearly_behind_infinity() -> None:
    truth = torch.tensor([2.0, 2.0, 2.0, 2.0])
    estimate = torch.tensor([4.0, 2.0, 2 * LOWEST_RATIO, -1.0], requires_grad=True)
    g = log_ratio(estimate, truth)
    line = math.log(LOWEST_RATIO) + (-0.5 - LOWEST_RATIO) / LOWEST_RATIO
    assert g.tolist() == pytest.approx([math.log(2), 0.0, math.log(LOWEST_RATIO), line], rel=1e-5)
    g.sum().backward()
    assert estimate.grad is not None
    assert estimate.grad[-1] == pytest.approx(1 / (LOWEST_RATIO * 2), rel=1e-5)


def test_sigma_is_taught_the_error_and_the_estimate_is_left_alone() -> None:
    error = torch.full((1, 1, 4, 4), 0.3, requires_grad=True)
    log_scale = torch.full((1, 1, 4, 4), math.log(0.3), requires_grad=True)
    value = laplace_of_known_error(error, log_scale, everywhere(error))
    assert float(value.detach()) == pytest.approx(1 + math.log(0.3))
    value.backward()
    assert error.grad is None
    assert log_scale.grad is not None
    assert torch.allclose(log_scale.grad, torch.zeros(1), atol=1e-6), "b = |e| is the optimum"


@pytest.mark.parametrize(("call", "named"), [
    (lambda g, v: silog_loss(g, v, 1.2), r"lambda_ = 1\.2"),
    (lambda g, v: multi_scale_gradient_loss(g, v, 0), "scales = 0")])
def test_settings_that_mean_nothing_are_refused(call: object, named: str) -> None:
    g = errors(1, 1, 4, 4)
    with pytest.raises(ValueError, match=named):
        call(g, everywhere(g))  # type: ignore[operator]
