"""The affine loss: invariances, masks, and cases worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from depth_fusion_ros.networks.convention import DiFuseNetOutput
from depth_fusion_ros.training.affine_losses import (
    affine_errors,
    affine_loss,
    fit_least_squares,
    normalise,
    pool_valid,
)

ALIGNMENTS = ("median", "least_squares")


def smooth(seed: int, size: int = 16) -> Tensor:
    coarse = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def everywhere(like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_scale_and_shift_do_not_count_but_a_turned_sign_does(alignment: str) -> None:
    truth = smooth(1)
    for estimate in (truth, 0.2 * truth + 5, 30 * truth - 2):
        mae, gradient = affine_errors(estimate, truth, everywhere(truth), alignment)
        assert float(mae) == pytest.approx(0, abs=1e-4)
        assert float(gradient) == pytest.approx(0, abs=1e-4)
    mae, _ = affine_errors(-truth, truth, everywhere(truth), alignment)
    assert float(mae) > 0.5


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_the_loss_turns_an_estimate_round_that_runs_against_the_truth(alignment: str) -> None:
    truth = smooth(2)
    estimate = (-truth).requires_grad_()
    mae, _ = affine_errors(estimate, truth, everywhere(truth), alignment)
    mae.backward()
    assert estimate.grad is not None
    step = -estimate.grad
    assert float(((step - step.mean()) * (truth - truth.mean())).sum()) > 0


def test_median_alignment_by_hand() -> None:
    """Values 0, 1, 2, 3, 9: median 2, deviations 2 1 0 1 7, their mean 11/5."""
    values = torch.tensor([0.0, 1.0, 2.0, 3.0, 9.0]).view(1, 1, 1, 5)
    expected = torch.tensor([-2.0, -1.0, 0.0, 1.0, 7.0]) / 2.2
    assert torch.allclose(normalise(values, everywhere(values)).flatten(), expected)
    hidden = torch.tensor([1, 1, 1, 0, 0], dtype=torch.bool).view(1, 1, 1, 5)
    # Without 3 and 9: median 1, mean deviation 2/3.
    expected = (values.flatten() - 1) * 1.5
    assert torch.allclose(normalise(values, hidden).flatten(), expected)


def test_least_squares_by_hand() -> None:
    """Points (0, 1), (1, 3), (2, 5) lie on 2e + 1; the fourth, at (3, 100), is masked."""
    estimate = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 1, 1, 4)
    target = torch.tensor([1.0, 3.0, 5.0, 100.0]).view(1, 1, 1, 4)
    mask = torch.tensor([1, 1, 1, 0], dtype=torch.bool).view(1, 1, 1, 4)
    fitted = fit_least_squares(estimate, target, mask)
    assert fitted.flatten().tolist() == pytest.approx([1.0, 3.0, 5.0, 7.0])


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_what_is_not_valid_has_no_say_whatever_stands_there(alignment: str) -> None:
    truth, estimate = smooth(3), smooth(4)
    valid = everywhere(truth)
    valid[..., :5] = False
    reference = affine_errors(estimate, truth, valid, alignment)
    for junk in (0.0, 1e6, float("nan"), float("inf")):
        spoiled = truth.masked_fill(~valid, junk)
        values = affine_errors(estimate, spoiled, valid, alignment)
        assert [float(v) for v in values] == pytest.approx([float(v) for v in reference])


def test_an_image_without_truth_gives_no_loss_and_no_gradient_but_others_do() -> None:
    truth, valid = smooth(5), everywhere(smooth(5))
    valid[1] = False
    estimate = smooth(6).requires_grad_()
    both, _ = affine_errors(estimate, truth, valid)
    alone, _ = affine_errors(estimate[:1], truth[:1], valid[:1])
    assert float(both.detach()) == pytest.approx(float(alone.detach()))
    both.backward()
    assert estimate.grad is not None
    assert torch.isfinite(estimate.grad).all()
    assert float(estimate.grad[1].abs().max()) == 0
    assert float(estimate.grad[0].abs().max()) > 0
    nothing, _ = affine_errors(estimate, truth, torch.zeros_like(valid))
    assert float(nothing.detach()) == 0


def test_pooling_averages_valid_pixels_and_asks_for_half_of_them() -> None:
    values = torch.tensor([[1.0, 3.0], [100.0, 5.0]]).view(1, 1, 2, 2)
    valid = torch.tensor([[True, True], [False, True]]).view(1, 1, 2, 2)
    pooled, mask = pool_valid(values, valid, 2)
    assert pooled.item() == pytest.approx(3.0)
    assert mask.item()
    valid[0, 0, :, 1] = False
    assert not pool_valid(values, valid, 2)[1].item(), "a quarter is not enough"


def test_gradient_weight_and_deep_supervision_enter_as_written() -> None:
    """Full resolution weighs 1, half of it 1/2; each is MAE + λ·gradient."""
    truth, fine, coarse = smooth(7), smooth(8), smooth(9, 8)
    valid = everywhere(truth)
    zero = torch.zeros_like(fine)
    output = DiFuseNetOutput(fine, zero, [(coarse, zero)], [])
    expected = 0.0
    for weight, estimate, factor in ((1.0, fine, 1), (0.5, coarse, 2)):
        mae, gradient = affine_errors(estimate, *pool_valid(truth, valid, factor))
        expected += weight * float(mae + 30 * gradient)
    loss, parts = affine_loss(output, truth, valid, estimates_inverse_depth=True)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert parts["affine_mae"] == pytest.approx(float(affine_errors(fine, truth, valid)[0]))


def test_disparity_counts_as_inverse_depth_with_its_sign_turned() -> None:
    inverse_depth = smooth(10)
    disparity = 3.0 * (0.8 - inverse_depth)  # d = k(1/g − 1/Z)
    output = DiFuseNetOutput(disparity, disparity, [], [])
    valid = everywhere(inverse_depth)
    right, _ = affine_loss(output, inverse_depth, valid, estimates_inverse_depth=False)
    wrong, _ = affine_loss(output, inverse_depth, valid, estimates_inverse_depth=True)
    assert float(right) == pytest.approx(0, abs=1e-3)
    assert float(wrong) > 1


def test_unknown_alignment_is_refused() -> None:
    with pytest.raises(ValueError, match="least_squares"):
        affine_errors(smooth(1), smooth(1), everywhere(smooth(1)), "mean")
