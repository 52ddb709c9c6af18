"""Gathering of evidence along surfaces, and the log-linear heads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.networks.aggregation import (
    GROUPS,
    START_LENGTHS,
    EdgeAwareAggregation,
)
from depth_fusion_ros.networks.convention import (
    NEAREST_H,
    inverse_log_linear,
    lens_condition,
    log_linear,
)
from depth_fusion_ros.networks.registry import build
from depth_fusion_ros.networks.sweep import STEPS, compiled_available, sweep, tensor_sweep


@given(seed=st.integers(0, 1000), width=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_a_sweep_weighs_with_the_product_of_the_affinities_in_between(seed: int, width: int
                                                                      ) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(1, 1, 1, width, generator=generator, dtype=torch.float64)
    a = torch.rand(1, 1, 1, width, generator=generator, dtype=torch.float64)
    expected = torch.zeros(width, dtype=torch.float64)
    for i in range(width):
        for j in range(width):
            low, high = min(i, j), max(i, j)
            expected[i] += x[0, 0, 0, j] * a[0, 0, 0, low + 1:high + 1].prod()
    torch.testing.assert_close(sweep(x, a)[0, 0, 0], expected)


@pytest.mark.skipif(not compiled_available(), reason="numba is not installed")
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 1, 1), (3, 2, 7, 50)])
def test_the_compiled_sweep_and_its_gradients_equal_those_of_the_tensor_operations(
    shape: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(*shape, generator=generator, requires_grad=True)
    a = torch.rand(shape[0], 1, *shape[2:], generator=generator, requires_grad=True)
    worth = torch.randn(*shape, generator=generator)
    results = [f(x, a) for f in (sweep, tensor_sweep)]
    torch.testing.assert_close(*results)
    gradients = [torch.autograd.grad((result * worth).sum(), (x, a)) for result in results]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_a_sweep_reaches_as_far_as_it_says_and_no_farther() -> None:
    x = torch.zeros(1, 1, 1, 200)
    x[..., 100] = 1.0
    reached = sweep(x, torch.ones(1, 1, 1, 200))[0, 0, 0] > 0.5
    assert reached.nonzero().flatten().tolist() == list(range(100 - 2**STEPS + 1, 100 + 2**STEPS))


def stopping_where_the_feature_is_set() -> EdgeAwareAggregation:
    """Affinities of rows 0 where the one feature is 1, and nearly 1 elsewhere."""
    module = EdgeAwareAggregation(1)
    torch.nn.init.zeros_(module.predict.weight)
    assert module.predict.bias is not None
    module.predict.bias.data[:2 * GROUPS] = 6.0
    for group in range(GROUPS):
        module.predict.weight.data[2 * group, 0, 1, 1] = -40.0
    return module


def test_evidence_spreads_over_a_surface_and_stops_at_its_border() -> None:
    features = torch.zeros(1, 1, 16, 32)
    features[..., 20] = 1.0  # the border lies between columns 19 and 20
    moments = torch.zeros(1, 2, 16, 32)
    moments[0, :, 8, 3] = torch.tensor([0.01, 0.01 * 2.5])    # one match of 2.5 px on the left
    moments[0, :, 8, 28] = torch.tensor([0.01, 0.01 * -1.0])  # one of −1 px on the right
    votes, energy, mean, _ = stopping_where_the_feature_is_set()(
        features, moments, torch.zeros(1, 1, 16, 32))
    assert mean[0, 0, 8, 5:20].min() > 2.3
    assert mean[0, 0, 8, 20:30].max() < -0.9
    assert votes.shape == energy.shape == (1, GROUPS, 16, 32)


def test_where_nothing_was_matched_the_prior_stays() -> None:
    module = EdgeAwareAggregation(4)
    _, _, mean, _ = module(torch.zeros(1, 4, 8, 8), torch.zeros(1, 2, 8, 8),
                           torch.full((1, 1, 8, 8), 0.7))
    torch.testing.assert_close(mean, torch.full_like(mean, 0.7))


def test_untrained_groups_reach_from_near_to_far() -> None:
    module = EdgeAwareAggregation(4)
    assert module.predict.bias is not None
    affinity = torch.sigmoid(module.predict.bias[:2 * GROUPS:2])
    lengths = -1 / torch.log(affinity)
    assert lengths.tolist() == pytest.approx(START_LENGTHS, rel=1e-3)


@given(x=st.floats(-3.5, 8.0))
@settings(deadline=None)
def test_the_log_linear_head_is_positive_rising_and_has_an_inverse(x: float) -> None:
    value = torch.tensor(x, dtype=torch.float64)
    assert float(log_linear(value)) > 0
    assert float(log_linear(value + 0.01)) > float(log_linear(value))
    assert float(inverse_log_linear(log_linear(value))) == pytest.approx(x, abs=1e-9)


def test_the_inverse_of_the_log_linear_head_holds_on_to_its_nearest_value() -> None:
    behind_infinity = inverse_log_linear(torch.tensor([-1.0, 0.0, NEAREST_H]))
    assert behind_infinity.tolist() == pytest.approx([float(behind_infinity[2])] * 3)


def test_a_fresh_network_starts_at_one_dioptre_on_every_lens_and_within_reach_on_none() -> None:
    torch.manual_seed(0)
    network = build("difuse_net_s").eval()
    lens = lens_condition(torch.tensor([0.4, 0.1]), torch.tensor([2.0, 0.5]),
                          torch.tensor([1.5, 0.5]))
    condition = torch.cat([lens, torch.zeros(1, 4)])
    views = torch.full((3, 1, 64, 64), 0.5)
    with torch.inference_mode():
        output = network.forward_full(views, views, views.expand(-1, 3, -1, -1), condition)
    regressed = output.intermediate[0][0].mean((1, 2, 3))
    assert regressed.tolist() == pytest.approx([2.0 * (1.5 - 1), 0.5 * (0.5 - 1), 8.0 - 4.0],
                                               abs=0.05)
