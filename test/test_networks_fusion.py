"""Networks of the focus-sweep path: volume, alignment, attention in windows, published fusions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.networks.alignment import (
    align,
    inverse_variance,
    normalise_prior,
)
from depth_fusion_ros.networks.attention_layers import WindowAttention, from_windows, to_windows
from depth_fusion_ros.networks.blocks import parameter_count
from depth_fusion_ros.networks.crossdepth import CrossDepth, CrossDepthConfig
from depth_fusion_ros.networks.focus_volume import (
    FocusVolume,
    FocusVolumeConfig,
    ring_difference,
)

NAN = float("nan")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Alignment


@given(scale=st.floats(0.05, 5), shift=st.floats(-2, 4), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_alignment_returns_the_scale_and_shift_that_were_put_in(
    scale: float, shift: float, seed: int
) -> None:
    prior = normalise_prior(torch.rand(2, 1, 12, 16, generator=seeded(seed)))
    found = align(prior, scale * prior + shift, torch.ones_like(prior))
    assert found[0].flatten().tolist() == pytest.approx([scale] * 2, rel=1e-3, abs=1e-3)
    assert found[1].flatten().tolist() == pytest.approx([shift] * 2, abs=2e-3)


def test_alignment_trusts_sure_pixels_and_is_not_moved_by_wild_ones() -> None:
    prior = normalise_prior(torch.rand(1, 1, 20, 20, generator=seeded()))
    measured = 0.5 * prior + 1.5
    wrong = torch.rand(1, 1, 20, 20, generator=seeded(1)) < 0.4
    unsure = torch.where(wrong, 1.0, 0.03)
    disturbed = torch.where(wrong, measured + 3.0, measured)
    scale, shift = align(prior, disturbed, inverse_variance(unsure))
    assert float(scale) == pytest.approx(0.5, abs=0.02)
    assert float(shift) == pytest.approx(1.5, abs=0.05)
    few = torch.rand(1, 1, 20, 20, generator=seeded(2)) < 0.15
    sure_but_wild = torch.where(few, measured + 3.0, measured)
    weight = torch.ones_like(prior)
    plain = align(prior, sure_but_wild, weight, iterations=1)[1]
    robust = align(prior, sure_but_wild, weight, iterations=6)[1]
    assert abs(float(robust) - 1.5) < 0.2 * abs(float(plain) - 1.5)


def test_alignment_of_a_flat_prior_or_of_nothing_stays_finite() -> None:
    flat = normalise_prior(torch.full((1, 1, 8, 8), 7.0))
    assert float(flat.abs().max()) == 0
    scale, shift = align(flat, torch.full_like(flat, 2.0), torch.ones_like(flat))
    assert float(scale) == 0 and float(shift) == pytest.approx(2.0)
    nothing = align(flat, flat, torch.zeros_like(flat))
    assert [float(t) for t in nothing] == [0, 0]
    sigma = torch.tensor([[[[0.0, NAN, float("inf")]]]])
    assert inverse_variance(sigma).flatten().tolist() == pytest.approx([2500, 0, 0])


# Attention in windows


def test_windows_and_back_is_the_identity() -> None:
    x = torch.rand(2, 3, 8, 12, generator=seeded())
    assert torch.equal(from_windows(to_windows(x, 4), 4, (2, 8, 12)), x)


@pytest.mark.parametrize(("shifted", "reached"), [(False, range(8, 16)), (True, range(4, 12))])
def test_a_cell_is_heard_in_its_own_window_only(shifted: bool, reached: range) -> None:
    torch.manual_seed(0)
    layer = WindowAttention(8, 2, 8, shifted)
    x = torch.rand(1, 8, 24, 24, generator=seeded(), requires_grad=True)
    layer(x, x)[0, :, 10, 10].sum().backward()
    assert x.grad is not None
    heard = x.grad.abs().sum((0, 1)) > 0
    inside = torch.zeros(24, 24, dtype=torch.bool)
    inside[reached.start:reached.stop, reached.start:reached.stop] = True
    assert torch.equal(heard, inside)


def test_relative_positions_are_learned() -> None:
    torch.manual_seed(0)
    layer = WindowAttention(4, 2, 4)
    x = torch.rand(1, 4, 4, 4, generator=seeded())
    before = layer(x, x)
    torch.nn.init.normal_(layer.table, std=2.0)
    assert not torch.allclose(layer(x, x), before)
    layer(x, x).sum().backward()
    assert layer.table.grad is not None and float(layer.table.grad.abs().sum()) > 0


# The published fusion


def test_the_published_network_has_the_published_number_of_parameters() -> None:
    assert parameter_count(CrossDepth()) == 107_585
    paper = CrossDepth(CrossDepthConfig("paper"))
    names = {name.split(".")[0] for name, _ in paper.named_parameters()}
    assert {"positions", "mix"} <= names
    assert all(block.measured_asks is None for block in paper.blocks)


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_the_published_network_keeps_the_size_and_its_limits(variant: str) -> None:
    torch.manual_seed(0)
    network = CrossDepth(CrossDepthConfig(variant, 0.1, 4.0))  # type: ignore[arg-type]
    maps = [torch.rand(2, 1, 32, 48, generator=seeded(i)) for i in range(3)]
    result = network(*maps)
    assert result.shape == (2, 1, 32, 48)
    assert float(result.detach().min()) >= 0.1 and float(result.detach().max()) <= 4.0


def test_only_the_paper_variant_knows_where_a_token_is() -> None:
    for variant, knows in (("code", False), ("paper", True)):
        torch.manual_seed(0)
        network = CrossDepth(CrossDepthConfig(variant)).eval()  # type: ignore[arg-type]
        flat = [torch.full((1, 1, 64, 64), v) for v in (1.0, 0.1, 5.0)]
        inner = network(*flat)[..., 16:48, 16:48]
        assert (float(inner.std()) > 1e-5) == knows


# Focus volume


def blurred_stack(best: int, count: int = 5, size: int = 64) -> torch.Tensor:
    """A texture, sharp in slice `best` and the blurrier the farther from it: (1, N, 3, H, W)."""
    sharp = torch.rand(1, 3, size, size, generator=seeded())
    slices = []
    for index in range(count):
        width = 2 * abs(index - best) + 1
        slices.append(torch.nn.functional.avg_pool2d(sharp, width, 1, width // 2,
                                                     count_include_pad=False))
    return torch.stack(slices, 1)


@pytest.mark.parametrize("best", [0, 2, 4])
def test_the_ring_difference_is_largest_in_the_sharpest_slice(best: int) -> None:
    grey = blurred_stack(best).mean(2, keepdim=True)[0]
    assert int(ring_difference(grey).mean((1, 2, 3)).argmax()) == best


def test_the_ring_difference_of_a_constant_is_zero() -> None:
    assert float(ring_difference(torch.full((1, 1, 20, 20), 0.7)).max()) < 1e-10


@given(count=st.integers(2, 15), seed=st.integers(0, 50))
@settings(max_examples=8, deadline=None)
def test_the_volume_takes_any_number_and_spacing_of_slices(count: int, seed: int) -> None:
    torch.manual_seed(0)
    network = FocusVolume().eval()
    focus = torch.rand(1, count, generator=seeded(seed)).sort().values * 4
    with torch.inference_mode():
        output = network.forward_full(torch.rand(1, count, 3, 32, 32), focus)
    assert output.probability.sum(1).flatten().tolist() == pytest.approx([1.0] * 1024, abs=1e-4)
    for mean, sigma in [(output.diopters, output.sigma_diopters), *output.intermediate]:
        assert float(mean.min()) >= float(focus.min()) - 1e-4
        assert float(mean.max()) <= float(focus.max()) + 1e-4
        assert float(sigma.min()) > 0
        assert float(sigma.max()) <= float(focus[0, -1] - focus[0, 0]) / 2 + 2e-3


def test_a_volume_learns_which_slice_is_sharp_within_a_few_steps() -> None:
    torch.manual_seed(0)
    network = FocusVolume(FocusVolumeConfig((8, 8, 8, 8), (8, 8, 8, 8)))
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    focus = torch.tensor([[0.5, 1.0, 1.5, 2.0, 2.5]]).expand(5, -1)
    stack = torch.cat([blurred_stack(best) for best in range(5)])
    for _ in range(40):
        optimiser.zero_grad()
        mean, _ = network(stack, focus)
        loss = (mean.mean((1, 2, 3)) - focus[0]).abs().mean()
        loss.backward()
        optimiser.step()
    assert float(loss) < 0.2, "one guess for all would give 0.6"


def test_too_few_slices_or_positions_are_refused() -> None:
    network = FocusVolume()
    with pytest.raises(ValueError, match="at least 2"):
        network(torch.rand(1, 1, 3, 16, 16), torch.ones(1, 1))
    with pytest.raises(ValueError, match="one position"):
        network(torch.rand(1, 3, 3, 16, 16), torch.ones(1, 2))
