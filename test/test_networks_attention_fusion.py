"""Our fusion of a focus sweep with a monocular prior: where it starts, its limits, its memory."""

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
    inverse_variance,
    prior_deviation,
)
from depth_fusion_ros.networks.attention_fusion import AttentionFusion, AttentionFusionConfig
from depth_fusion_ros.networks.sweep_depth import SweepDepthConfig

NAN = float("nan")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


def test_weights_from_before_there_were_planes_run_without_them() -> None:
    values = asdict(SweepDepthConfig())
    assert SweepDepthConfig.from_dict(values).attention.planes
    del values["attention"]["planes"]
    config = SweepDepthConfig.from_dict(values).attention
    assert not config.planes and config.judge_prior
    heads = AttentionFusion(config).heads
    assert all(head.bias.shape == (3,) for head in heads)  # type: ignore[union-attr]


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
