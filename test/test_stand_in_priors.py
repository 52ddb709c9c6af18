"""Stand-ins for users' priors: the true shape with errors, and where training meets them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from sweep_scenes import SIZE, filled

from depth_fusion_ros.networks.registry import build
from depth_fusion_ros.training.config import LossSection
from depth_fusion_ros.training.config_sections import DataSection, ValidationSection
from depth_fusion_ros.training.objective import SealedBatch
from depth_fusion_ros.training.sources import SweepSource
from depth_fusion_ros.training.stand_in_priors import (
    draw_stand_ins,
    stand_in_prior,
    with_stand_ins,
)
from depth_fusion_ros.training.tasks import make_objective

SEEDS = st.integers(0, 2**31 - 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scenes(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Inverse depth of slopes with a box before them; a strip has no truth."""
    truth = torch.linspace(0.3, 1.2, 64).expand(count, 1, 48, 64).clone()
    truth[:, :, 12:30, 20:40] = 2.5
    truth[..., :4] = torch.inf
    return truth, torch.isfinite(truth)


def likeness(a: torch.Tensor, b: torch.Tensor, where: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a[where], b[where]]))[0, 1])


@given(SEEDS)
@settings(deadline=None, max_examples=25)
def test_stand_ins_are_finite_normalised_and_repeat_with_their_seed(seed: int) -> None:
    truth, valid = scenes()
    prior = stand_in_prior(truth, valid, generator(seed))
    assert prior.shape == truth.shape and torch.isfinite(prior).all()
    assert torch.allclose(prior.flatten(1).abs().mean(1), torch.ones(4), atol=1e-3)
    assert torch.equal(prior, stand_in_prior(truth, valid, generator(seed)))


def test_errors_grow_with_their_level_and_a_strong_one_has_the_scenes_shape() -> None:
    truth, valid = scenes(40)
    like = [likeness(stand_in_prior(truth, valid, generator(), level=level), truth, valid)
            for level in (0.0, 0.3, 2.0)]
    assert like[0] > 0.95 > like[1] > 0.8 > like[2]


def test_a_scene_without_truth_or_without_depth_gives_a_finite_prior() -> None:
    truth, valid = scenes(1)
    assert torch.isfinite(stand_in_prior(truth, valid & False, generator())).all()
    assert torch.isfinite(stand_in_prior(torch.ones_like(truth), valid, generator())).all()


def test_the_drawn_share_has_stand_ins_in_the_range_of_what_they_replace() -> None:
    truth, valid = scenes(200)
    drawn = draw_stand_ins(truth, valid, 0.3, generator())
    whole = drawn.isnan().flatten(1).all(1)
    assert (drawn.isnan().flatten(1).any(1) == whole).all()
    assert 0.2 < 1 - float(whole.float().mean()) < 0.4
    own = 30 + 5 * torch.randn(truth.shape, generator=generator(1))
    both = with_stand_ins(own, drawn)
    assert torch.equal(both[whole], own[whole])
    assert torch.allclose(both[~whole].flatten(1).median(1).values,
                          own[~whole].flatten(1).median(1).values, atol=0.5)
    assert likeness(both[~whole], truth[~whole], valid[~whole]) > 0.6


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepSource, SweepSource]:
    """Of the same sweeps: with stand-ins for half of them, and with none."""
    root = tmp_path_factory.mktemp("sweeps")
    held_out, training = (filled(root, seed).config for seed in (2, 1))
    made = []
    for share in (0.5, 0.0):
        data = DataSection(kind="simulated_sweep", stand_in_prior_share=share, seed=training.seed,
                           scenes=training.scenes, **SIZE)
        validation = ValidationSection(scenes=held_out.scenes, seed=held_out.seed)
        made.append(SweepSource(data, validation, root, "cpu"))
        made[-1].prepare(Fabric(accelerator="cpu"))
    return made[0], made[1]


def test_stand_ins_change_nothing_else_and_none_is_held_out(
    sources: tuple[SweepSource, SweepSource]
) -> None:
    with_some, without = sources
    batches = [with_some.batch(4, seed, 0.1) for seed in range(8)]
    shares = [1 - b.stand_in.isnan().float().mean() for b in batches if b.stand_in is not None]
    assert len(shares) == 8 and 0.2 < float(torch.stack(shares).mean()) < 0.8
    plain = without.batch(4, 3, 0.1)
    assert plain.stand_in is None
    for a, b in zip(plain.inputs, batches[3].inputs, strict=True):
        assert torch.equal(a, b)
    assert all(b.stand_in is None for b in with_some.held_out())


def test_the_fusion_learns_on_them_and_the_volume_does_not_see_them(
    sources: tuple[SweepSource, SweepSource]
) -> None:
    batch = sources[1].batch(2, 0, 0.0)
    stand_in = stand_in_prior(batch.inverse_depth_diopters, batch.valid, generator())
    given_one = replace(batch, stand_in=stand_in)
    for part, differs in (("volume", False), ("fusion", True)):
        torch.manual_seed(0)
        objective = make_objective(build("sweep_depth"), part, LossSection()).eval()
        with torch.no_grad():
            own, other = (float(objective(SealedBatch(b))[0]) for b in (batch, given_one))
        assert (own != other) == differs
