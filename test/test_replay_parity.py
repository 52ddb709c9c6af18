"""A bag through the node over DDS gives what the same bag gives offline, set by set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bag_scenes import write_small_bag
from sweep_bags import write_small_sweeps

from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.ros.environment import ensure_ros_environment, free_domain_id, ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from depth_fusion_ros.ros.collector import DEPTH, SIGMA
from depth_fusion_ros.ros.offline import TABLES, OfflineReplay
from depth_fusion_ros.ros.parameter_values import parameter_values
from depth_fusion_ros.ros.replay_paths import replay_path
from depth_fusion_ros.ros.replay_session import ReplaySettings, replay_through_node

pytestmark = pytest.mark.ros
PROVENANCE = "depth_registered/provenance"
PARAMETERS = {"model.threads": 1, "replay.process_all": True, "depth.max_sigma_ratio": 10.0,
              "model.warmup_width_px": 64, "model.warmup_height_px": 48, "use_sim_time": True,
              "transport.self_test": False, "budget.allow_degrade": False}


@pytest.mark.parametrize(("path", "model", "sets"), [
    ("dual_pixel", "difuse_net_s", 6), ("focus_sweep", "closed_form", 3)])
def test_live_and_offline_give_one_equal_output_for_each_input(
        tmp_path: Path, path: str, model: str, sets: int) -> None:
    bag_path = tmp_path / "bag"
    if path == "dual_pixel":
        write_small_bag(bag_path, frames=sets, width_px=64, height_px=48)
    else:
        write_small_sweeps(bag_path, sets, times=2)
    parameters = {**PARAMETERS, "model.path": model}
    ensure_ros_environment(domain_id=free_domain_id())
    outcome = replay_through_node(
        bag_path, ReplaySettings(path=replay_path(path), parameters=parameters, rate=2.0,
                                 more_topics={PROVENANCE: "sensor_msgs/msg/Image"}),
        log_path=tmp_path / "node.log")
    collector = outcome.collector
    assert collector.drops() == {}

    values = parameter_values(TABLES[path], (), [
        f"{name}:={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in parameters.items()])
    replay = OfflineReplay(path, values)
    with BagReader(bag_path) as bag:
        frames = list(replay.frames(bag))
    assert len(frames) == sets == len(collector.stamps(DEPTH)), "one output for each input"
    assert [frame.stamp_ns for frame in frames] == sorted(collector.stamps(DEPTH))
    assert replay.accounts.totals().drops == {}
    measured = 0
    for frame in frames:
        for topic, offline in ((DEPTH, frame.estimate.depth_m), (SIGMA, frame.estimate.sigma_m)):
            live = collector.image(topic, frame.stamp_ns)
            assert live is not None
            np.testing.assert_allclose(live.array, offline, rtol=1e-5, atol=0)
            measured += int(np.isfinite(offline).sum())
        labels = collector.image(PROVENANCE, frame.stamp_ns)
        assert labels is not None
        np.testing.assert_array_equal(labels.array, frame.estimate.provenance)
    assert measured > 100, "there is something to compare"
