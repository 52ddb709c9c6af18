"""Networks of the focus-sweep path: volume, alignment, the published fusion and ours."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.networks.alignment import (
    DEVIATION_RANGE_DIOPTERS,
    align,
    inverse_variance,
    normalise_prior,
    prior_deviation,
)
from depth_fusion_ros.networks.attention_fusion import AttentionFusion, AttentionFusionConfig
from depth_fusion_ros.networks.attention_layers import WindowAttention, from_windows, to_windows
from depth_fusion_ros.networks.blocks import parameter_count
from depth_fusion_ros.networks.crossdepth import CrossDepth, CrossDepthConfig
from depth_fusion_ros.networks.focus_volume import (
    FocusVolume,
    FocusVolumeConfig,
    ring_difference,
)
from depth_fusion_ros.networks.sweep_depth import SweepDepthConfig

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


# Our fusion


def scene(size: int = 32) -> tuple[torch.Tensor, ...]:
    """Measured, σ, prior, RGB: the prior is right up to scale and shift, half is not measured."""
    truth = 0.5 + 2 * torch.rand(1, 1, size, size, generator=seeded())
    sigma = torch.full_like(truth, 0.02)
    measured = truth.clone()
    measured[..., size // 2:] = NAN
    sigma[..., size // 2:] = NAN
    return measured, sigma, 30 * truth + 7, torch.rand(1, 3, size, size, generator=seeded(1))


def test_a_fresh_fusion_gives_focus_where_it_is_sure_and_the_aligned_prior_elsewhere() -> None:
    measured, sigma, prior, rgb = scene()
    truth = (prior - 7) / 30
    torch.manual_seed(0)
    network = AttentionFusion().eval()
    with torch.inference_mode():
        fused = network(measured, sigma, prior, rgb)
    assert torch.allclose(fused.diopters, truth, atol=0.05)
    assert torch.isfinite(fused.log_sigma).all()
    assert float(fused.measured_share[..., :16].mean()) > 0.5, "as sure as that prior, or surer"
    assert float(fused.measured_share[..., 16:].mean()) < 0.2


@given(sigma_g=st.floats(0.1, 1.5), sigma_m=st.floats(0.02, 0.1), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_a_prior_is_judged_by_what_it_misses_beyond_the_noise_of_focus(
    sigma_g: float, sigma_m: float, seed: int
) -> None:
    aligned = torch.rand(1, 1, 60, 60, generator=seeded(seed))
    noise = torch.randn(2, 1, 1, 60, 60, generator=seeded(seed + 1))
    measured = aligned + sigma_g * noise[0] + sigma_m * noise[1]
    sigma = torch.full_like(aligned, sigma_m)
    found = prior_deviation(aligned, measured, sigma, inverse_variance(sigma))
    assert float(found) == pytest.approx(sigma_g, rel=0.06)


def test_a_prior_that_fits_perfectly_or_was_never_seen_to_fit_is_within_the_limits() -> None:
    aligned = torch.rand(1, 1, 8, 8, generator=seeded())
    sigma = torch.full_like(aligned, 0.1)
    least, most = DEVIATION_RANGE_DIOPTERS
    assert float(prior_deviation(aligned, aligned, sigma, sigma)) == pytest.approx(least)
    assert float(prior_deviation(aligned, aligned, sigma, 0 * sigma)) == pytest.approx(most)


def test_a_fresh_fusion_gives_a_prior_the_share_that_its_errors_deserve() -> None:
    truth = 0.5 + 2 * torch.rand(1, 1, 64, 64, generator=seeded())
    sigma = torch.full_like(truth, 0.02)
    sigma[..., 32:] = 0.3  # half of the view is blank
    measured = truth + sigma * torch.randn(truth.shape, generator=seeded(2))
    rgb = torch.rand(1, 3, 64, 64, generator=seeded(1))
    torch.manual_seed(0)
    network = AttentionFusion().eval()
    shares = []
    for error in (0.02, 0.3, 3.0):
        prior = truth + error * torch.randn(truth.shape, generator=seeded(3))
        with torch.inference_mode():
            fused = network(measured, sigma, prior, rgb)
        assert float(fused.measured_share[..., :32].mean()) > 0.5
        shares.append(float(fused.measured_share[..., 32:].mean()))
    assert shares[0] < 0.1 and 0.4 < shares[1] < 0.6 and shares[2] > 0.6


def test_corrections_and_sigma_are_in_units_of_what_is_known() -> None:
    torch.manual_seed(0)
    network = AttentionFusion().eval()
    for head in network.heads:
        torch.nn.init.zeros_(head.weight)
    last = network.heads[-1]
    assert isinstance(last.bias, torch.Tensor)
    measured = 0.5 + 2 * torch.rand(1, 1, 32, 32, generator=seeded())
    prior, rgb = (torch.rand(1, c, 32, 32, generator=seeded(c)) for c in (1, 3))
    moved, scales = [], []
    for sigma_m in (0.02, 0.1):
        answers = []
        for correction in (0.0, 1.0):
            last.bias.data[1] = correction
            with torch.inference_mode():
                answers.append(network(measured, torch.full_like(measured, sigma_m), prior, rgb))
        moved.append(float((answers[1].diopters - answers[0].diopters).mean()))
        scales.append(float(answers[0].log_sigma.exp().mean()))
    assert moved == pytest.approx([0.03, 0.11], rel=0.05), "a useless prior adds nothing"
    assert scales == pytest.approx(moved, rel=1e-3)


def test_weights_from_before_priors_were_judged_run_as_they_did() -> None:
    values = asdict(SweepDepthConfig())
    del values["attention"]["judge_prior"]
    assert not SweepDepthConfig.from_dict(values).attention.judge_prior
    measured, sigma, prior, rgb = scene()
    torch.manual_seed(0)
    network = AttentionFusion(AttentionFusionConfig(judge_prior=False)).eval()
    with torch.inference_mode():
        share = network(measured, sigma, prior, rgb).measured_share
    assert float(share[..., :16].mean()) > 0.8 and float(share[..., 16:].mean()) < 0.2


def test_the_unit_of_the_prior_does_not_matter_and_without_alignment_it_is_no_metre() -> None:
    measured, sigma, prior, rgb = scene()
    torch.manual_seed(0)
    network = AttentionFusion().eval()
    with torch.inference_mode():
        expected = network(measured, sigma, prior, rgb).diopters
        scaled = network(measured, sigma, 0.01 * prior - 3, rgb).diopters
        unaligned = AttentionFusion(AttentionFusionConfig(align_first=False)).eval()
        relative = unaligned(measured, sigma, prior, rgb).aligned
    assert torch.allclose(scaled, expected, atol=1e-3)
    assert float(relative.min()) < 0


def test_every_parameter_of_the_fusion_learns_and_coarse_results_have_full_size() -> None:
    torch.manual_seed(0)
    network = AttentionFusion()
    for head in network.heads:
        torch.nn.init.normal_(head.weight, std=0.1)
    results = network.forward_full(*scene(48))
    assert [tuple(r.diopters.shape) for r in results] == [(1, 1, 48, 48)] * 3
    sum(r.diopters.sum() + r.log_sigma.mean() for r in results).backward()  # type: ignore[union-attr]
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_the_fusion_needs_less_than_200_megabytes_at_384_by_576() -> None:
    script = (
        "import resource, torch\n"
        "from depth_fusion_ros.networks.attention_fusion import AttentionFusion\n"
        "torch.set_num_threads(1)\n"
        "n = AttentionFusion().eval()\n"
        "def run(h, w):\n"
        "    with torch.inference_mode():\n"
        "        m = torch.rand(1, 1, h, w)\n"
        "        n(m, m, m, torch.rand(1, 3, h, w))\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "run(32, 32)\n"
        "print(-run(32, 32) + run(384, 576))\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          check=True, timeout=120)
    assert int(done.stdout) < 200 * 1024


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
