"""Training of the focus-sweep network in parts, on sweeps that are filled in without rendering."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file
from sweep_scenes import SIZE, TINY, fill_caches

from depth_fusion_ros.networks.registry import architecture, build, build_from_dict
from depth_fusion_ros.networks.sweep_depth import PARTS, SweepDepth, all_in_focus
from depth_fusion_ros.training.config import ConfigError, LossSection, load_config, stage_config
from depth_fusion_ros.training.objective import SealedBatch
from depth_fusion_ros.training.parallel import start_processes
from depth_fusion_ros.training.stages import copy_common, train
from depth_fusion_ros.training.sweep_data import SweepCache, SweepCacheConfig, focus_positions
from depth_fusion_ros.training.sweep_exposure import make_sweep_batch
from depth_fusion_ros.training.sweep_objective import SweepObjective
from depth_fusion_ros.training.tasks import make_objective, measure_held_out


@pytest.fixture(scope="module")
def cache_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_caches(tmp_path_factory.mktemp("sweeps"))


@pytest.fixture(scope="module")
def cache(cache_root: Path) -> SweepCache:
    return SweepCache(SweepCacheConfig(16, seed=1, **SIZE), cache_root)


def drawn(cache: SweepCache, seed: int = 0, slices: int = 0) -> Any:
    return make_sweep_batch(cache, torch.arange(3), torch.Generator().manual_seed(seed),
                            slices=slices)


def test_a_batch_repeats_by_its_seed_and_holds_rising_focus(cache: SweepCache) -> None:
    first, again, other = drawn(cache), drawn(cache), drawn(cache, 1)
    assert torch.equal(first.stack, again.stack)
    assert first.stack.shape != other.stack.shape or not torch.equal(first.stack, other.stack)
    assert (first.focus_diopters.diff(dim=1) > 0).all()
    assert first.stack.shape[1] == first.focus_diopters.shape[1]
    assert drawn(cache, slices=4).stack.shape == (3, 4, 3, 64, 64)
    assert float(first.stack.min()) >= 0 and float(first.stack.max()) <= 1
    truth = torch.linspace(0.5, 2.0, 16)[:3]
    assert torch.allclose(first.inverse_depth_diopters[:, 0, 0, 0], truth)


def test_an_even_choice_of_slices_has_both_ends_and_no_gap_twice_another(cache: SweepCache) -> None:
    batch = make_sweep_batch(cache, torch.arange(3), torch.Generator().manual_seed(0), slices=3,
                             even=True)
    every = torch.from_numpy(cache.focus[:3])
    assert torch.equal(batch.focus_diopters, every[:, [0, 2, 4]])


def test_positions_rise_and_cover_about_the_scene() -> None:
    near, far = torch.full((200,), 0.5), torch.full((200,), 4.0)
    focus = focus_positions(near, far, 8, torch.Generator().manual_seed(0))
    assert (focus.diff(dim=1) > 0).all()
    assert float(focus.min()) > 0
    assert float(focus[:, -1].min()) > 1.4 and float(focus[:, -1].max()) < 2.4


def test_all_in_focus_takes_the_sharp_slice(cache: SweepCache) -> None:
    stack = torch.rand(1, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    blurred = F.avg_pool2d(stack[0], 7, 1, 3, count_include_pad=False)[None]
    composed = all_in_focus(torch.cat([blurred, stack, blurred], 1))
    assert float((composed - stack[:, 0]).abs().mean()) < 0.1 * float(
        (blurred - stack)[0].abs().mean())


@pytest.mark.parametrize("part", PARTS)
def test_a_step_changes_its_part_and_nothing_else(part: str, cache: SweepCache) -> None:
    torch.manual_seed(0)
    network = build("sweep_depth")
    assert isinstance(network, SweepDepth)
    loss = LossSection()
    objective = make_objective(network, part, loss)
    objective.train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    value, parts = objective(SealedBatch(drawn(cache, slices=4)))
    value.backward()
    optimiser.step()
    assert torch.isfinite(value) and parts
    changed = {k.split(".")[0] for k, v in network.state_dict().items()
               if not torch.equal(v, before[k])}
    assert changed == {part}, "frozen statistics stay as well"
    with torch.inference_mode():
        errors = measure_held_out(network.eval(), part, loss, iter([drawn(cache, slices=4)]))
    assert errors and all(torch.isfinite(torch.tensor(v)) for v in errors.values())


def test_an_unknown_part_or_loss_is_refused() -> None:
    network = build("sweep_depth")
    assert isinstance(network, SweepDepth)
    with pytest.raises(ValueError, match="'whole'"):
        SweepObjective(network, "whole", LossSection())
    with pytest.raises(ValueError, match=r"'affine' of part 'fusion'.*'silog'"):
        SweepObjective(network, "fusion", LossSection(kind="affine"))
    with pytest.raises(ValueError, match="focus-sweep networks"):
        make_objective(build("difuse_net_s"), "", LossSection(kind="silog"))


def test_parts_are_trained_one_after_the_other_and_handed_on(
    tmp_path: Path, cache_root: Path
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    config = load_config(path)
    fabric = start_processes(config.hardware)
    weights = train(config, tmp_path / "run", cache_root, fabric)
    volume = load_file(tmp_path / "run/volume/volume.safetensors")
    prior = load_file(tmp_path / "run/prior/prior.safetensors")
    whole = load_file(weights)
    for name, value in whole.items():
        if name.startswith("volume."):
            assert torch.equal(value, volume[name]) and torch.equal(value, prior[name])
        if name.startswith("prior."):
            assert torch.equal(value, prior[name])
    other = build("sweep_depth-hybrid")
    copied = copy_common(other, whole)
    assert {name.split(".")[0] for name in copied} == {"volume", "prior"}
    with pytest.raises(ValueError, match="not one of its weights"):
        copy_common(other, {"foreign": torch.zeros(1)})


@pytest.mark.parametrize("name", ["sweep_depth", "sweep_depth-hybrid", "sweep_depth-volume_alone",
                                  "sweep_depth-crossdepth_paper", "sweep_depth-crossdepth_code"])
def test_every_fusion_runs_from_its_description(name: str) -> None:
    network = build(name)
    twin = build_from_dict(architecture(network))
    twin.load_state_dict(network.state_dict())
    stack = torch.rand(1, 4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    focus = torch.tensor([[0.5, 1.0, 1.7, 2.0]])
    with torch.inference_mode():
        outputs = twin.eval()(stack, focus)
    *maps, image, measured = outputs
    assert [tuple(o.shape) for o in (*maps, measured)] == [(1, 1, 64, 64)] * 6
    assert tuple(image.shape) == (1, 3, 64, 64)
    assert torch.isfinite(outputs[0]).all() and torch.isfinite(outputs[1]).all()


@pytest.mark.parametrize(("changes", "named"), [
    ({"network": "difuse_net_s", "stages": []}, "simulated_sweep"),
    ({"data": {"kind": "simulated", "scenes": 16}}, "simulated_sweep"),
    ({"stages": [{"name": "whole", "steps": 1}]}, "whole"),
    ({"stages": [{"name": "fusion", "steps": 1}, {"name": "prior", "steps": 1}]}, "comes last"),
    ({"stages": []}, "stages are missing"), ({"start_from": "gone.safetensors"}, "no such file"),
    ({"network": "difuse_net_s", "stages": [], "data": {"scenes": 16}, "start_from": "x"},
     "only focus-sweep networks"),
    ({"data": {"kind": "simulated_sweep", "slices": 2}}, "slices"),
    ({"network": "difuse_net_s", "stages": [], "data": {"scenes": 16}, "loss": {"kind": "silog"}},
     "'silog' with network = 'difuse_net_s'"),
    ({"stages": [{"name": "prior", "steps": 1, "loss": {"kind": "silog"}},
                 {"name": "fusion", "steps": 1}]}, "stage 'prior': loss kind = 'silog'"),
    ({"network": "difuse_net_s", "data": {"scenes": 16},
      "stages": [{"name": "whole", "steps": 1, "loss": {"kind": "silog"}}]},
     "stage 'whole': loss kind = 'silog'.*metric or affine"),
    ({"stages": [{"name": "fusion", "steps": 1, "loss": {"kind": "affine"}}]},
     "stage 'fusion': loss kind = 'affine'.*metric or silog")])
def test_configurations_that_do_not_fit_are_refused_by_name(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}))
    with pytest.raises(ConfigError, match=named):
        load_config(path)


def test_the_papers_loss_of_a_run_is_that_of_volume_and_fusion(tmp_path: Path) -> None:
    path = tmp_path / "silog.yaml"
    path.write_text(yaml.safe_dump({**TINY, "loss": {"kind": "silog"}}))
    config = load_config(path)
    assert [stage_config(config, stage).loss.kind for stage in config.stages] == [
        "silog", "affine", "silog"]


def test_weights_that_cannot_be_begun_from_are_named(tmp_path: Path, cache_root: Path) -> None:
    broken, path = tmp_path / "broken.safetensors", tmp_path / "tiny.yaml"
    broken.write_text("no weights")
    path.write_text(yaml.safe_dump({**TINY, "start_from": str(broken)}))
    config = load_config(path)
    with pytest.raises(ConfigError, match=r"start_from = .*broken\.safetensors"):
        train(config, tmp_path / "run", cache_root, start_processes(config.hardware))
