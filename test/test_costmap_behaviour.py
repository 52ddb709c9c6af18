"""What is measured of a costmap, on clouds made by hand; the grid is that of the shipped YAML."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from box_before_wall import (
    CAMERA,
    HEIGHT,
    PARAMETERS,
    POSE,
    THING,
    THING_M,
    WALL_M,
    WIDTH,
    on_thing,
    points,
    truth,
)

from depth_fusion_ros.bags.clouds import cloud_array
from depth_fusion_ros.bags.typestore import BagError, message_class
from depth_fusion_ros.evaluation.costmap_behaviour import (
    ReceivedFrame,
    SceneOutcome,
    scene_outcome,
)
from depth_fusion_ros.evaluation.costmap_report import (
    ShownUpdate,
    behaviour_rows,
    behaviour_values,
    write_scene_picture,
)
from depth_fusion_ros.evaluation.naive_costmap import naive_parameters, one_per_cube
from depth_fusion_ros.navigation.costmap_config import read_costmap


def frame(number: int, depth_m: np.ndarray, **changes: Any) -> ReceivedFrame:
    """A frame that saw the truth; `changes` replace what it brought."""
    cloud = points(depth_m)
    values = {"obstacles": cloud, "clearing": cloud[:, :3], "points": cloud, **changes}
    return ReceivedFrame(100.0 + 0.2 * number, depth_m, **values)


def outcome(*frames: ReceivedFrame, subject: bool = True) -> SceneOutcome:
    return scene_outcome(frames, CAMERA, on_thing if subject else None, PARAMETERS, POSE)


def test_a_costmap_that_is_fed_with_the_truth_has_no_fault() -> None:
    found = outcome(*(frame(n, truth(thing=n in (1, 2, 3))) for n in range(6)))
    ours = found.ours
    assert ours.updates_to_mark == ours.updates_to_clear == 1
    assert ours.false_share == ours.farthest_false_m == 0
    assert ours.found_share == ours.kept_share == 1 and ours.cells_left == 0
    assert ours.points_in_front == ours.rays_through == 0
    assert ours.times_lost == ours.cleared_blind == ours.blind_frames == 0
    assert [view.has_subject for view in found.updates] == [False, *[True] * 3, False, False]


def test_the_naive_costmap_keeps_a_ghost_where_only_rays_to_the_floor_would_clear() -> None:
    found = outcome(*(frame(n, truth(thing=n < 2)) for n in range(4)))
    assert found.naive.updates_to_mark == found.ours.updates_to_clear == 1
    assert found.naive.updates_to_clear == math.inf and found.naive.cells_left > 0
    assert found.naive.false_share > found.ours.false_share == 0


def test_marks_in_open_cells_are_false_and_their_share_is_of_the_open_cells() -> None:
    ghosts = np.array([[0.0, 0.0, 1.02, 0.01], [0.03, 0.0, 1.02, 0.01]], np.float32)
    nothing = np.zeros((0, 3), np.float32)
    found = outcome(frame(0, truth(), obstacles=ghosts, clearing=nothing), subject=False)
    (view,) = found.updates
    assert found.ours.false_share == pytest.approx(2 / view.is_open.sum())
    assert found.ours.farthest_false_m == pytest.approx(WALL_M - 1.02, abs=0.08)
    assert found.ours.found_share == 0 and found.naive.false_share == 0
    assert math.isnan(found.ours.updates_to_mark) and math.isnan(found.ours.points_in_front)


def test_a_cell_beside_a_true_surface_or_unseen_is_not_called_open() -> None:
    (view,) = outcome(frame(0, truth(thing=True))).updates
    rows, columns = np.nonzero(view.is_open)
    ahead_m, aside_m = -3 + (columns + 0.5) * 0.05, -3 + (rows + 0.5) * 0.05
    assert len(rows) > 200 and ahead_m.min() > 0 and ahead_m.max() < WALL_M - 0.05
    assert not ((ahead_m > THING_M - 0.05) & (np.abs(aside_m) < 0.05)).any()


def test_points_in_front_count_beyond_three_of_their_own_sigma() -> None:
    depth = truth(thing=True)
    near = depth.copy()
    near[THING] -= 0.1
    pixels = int(on_thing(depth).sum())
    for sigma_m, count in ((0.034, 0), (0.032, pixels)):
        found = outcome(frame(0, depth, obstacles=points(near, sigma_m)))
        assert found.ours.points_in_front == count


def test_a_ray_that_clears_beyond_what_is_there_is_counted() -> None:
    through = np.array([[0, 0, 1.3], [0, 0, 1.4], [0.9, 0, 2.0]], np.float32)
    found = outcome(frame(0, truth(thing=True), clearing=through))
    assert found.ours.rays_through == 1  # of the first, Nav2 keeps two cells; the last is free


def test_a_thing_that_was_marked_and_is_cleared_while_in_view_counts_as_lost() -> None:
    seen, missed = truth(thing=True), points(truth())
    frames = [frame(n, seen) for n in range(4)]
    frames.insert(2, frame(4, seen, obstacles=missed, clearing=missed[:, :3], points=missed))
    found = outcome(*(ReceivedFrame(100 + 0.2 * n, f.truth_m, f.obstacles, f.clearing, f.points)
                      for n, f in enumerate(frames)))
    assert found.ours.times_lost == 1
    assert found.ours.kept_share == pytest.approx(2 / 3)


def test_a_thing_that_is_never_marked_or_never_cleared_says_never() -> None:
    seen = [frame(0, truth(thing=True)), frame(1, truth(), clearing=np.zeros((0, 3), np.float32),
                                               obstacles=np.zeros((0, 4), np.float32))]
    assert outcome(*seen).ours.updates_to_clear == math.inf
    missed = points(truth())
    found = outcome(frame(0, truth(thing=True), obstacles=missed, clearing=missed[:, :3]))
    assert found.ours.updates_to_mark == math.inf
    assert behaviour_values(found.ours)["updates_to_mark"] == "never"
    row = next(r for r in behaviour_rows({"box": found}) if r.measure == "updates_to_mark")
    assert not row.met and row.text(row.ours) == "never" and row.text(row.naive) == "1"


def test_blind_frames_clear_nothing_and_only_the_silent_costmap_stops_the_robot() -> None:
    found = outcome(frame(0, truth(thing=True)),
                    frame(1, truth(thing=True), obstacles=None, clearing=None,
                          points=np.full((9, 4), np.nan, np.float32)))
    for behaviour in (found.ours, found.naive):
        assert behaviour.cleared_blind == 0 and behaviour.blind_frames == 1
        assert behaviour.times_lost == 0
    assert (found.ours.current_blind, found.naive.current_blind) == (0, 1)


def test_the_naive_costmap_has_one_source_on_the_same_grid() -> None:
    before = deepcopy(PARAMETERS)
    ours, naive = read_costmap(PARAMETERS), read_costmap(naive_parameters(PARAMETERS))
    assert before == PARAMETERS
    (source,) = naive.layers[0].sources
    assert source.marking and source.clearing and source.topic == "/camera/points"
    assert source.raytrace_max_range_m == ours.layers[0].sources[1].raytrace_max_range_m
    assert source.obstacle_max_range_m == ours.layers[0].sources[0].obstacle_max_range_m
    assert (naive.width_cells, naive.resolution_m) == (ours.width_cells, ours.resolution_m)


def test_parameters_without_a_pair_of_sources_and_empty_scenes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one of each is needed, as in config/nav2"):
        changed = deepcopy(PARAMETERS)
        changed["voxel_layer"]["df_clear"]["clearing"] = False
        scene_outcome([frame(0, truth())], CAMERA, None, changed, POSE)
    with pytest.raises(ValueError, match="at least one"):
        scene_outcome([], CAMERA, None, PARAMETERS, POSE)


def test_one_point_of_each_cube_is_kept_and_none_that_is_not_finite() -> None:
    cloud = np.array([[0.01, 0, 1], [0.02, 0, 1], [0.03, 0, 1], [np.nan, 0, 1], [-0.01, 0, 1]],
                     np.float32)
    np.testing.assert_array_equal(one_per_cube(cloud, 0.025), cloud[[0, 2, 4]])


def test_a_missed_target_is_a_row_that_is_not_met() -> None:
    near = points(truth() - np.float32(0.5))
    found = outcome(*(frame(n, truth(), obstacles=near, clearing=near[:, :3]) for n in range(2)),
                    subject=False)
    missed = [row.measure for row in behaviour_rows({"noise": found}) if not row.met]
    assert missed == ["false_share"]
    assert all(not math.isnan(row.ours) for row in behaviour_rows({"noise": found}))


def test_a_picture_is_drawn_with_and_without_clouds(tmp_path: Path) -> None:
    found = outcome(frame(0, truth(thing=True)))
    rgb, labels = np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.ones((HEIGHT, WIDTH), np.uint8)
    cloud, nothing = points(truth())[:, :3].astype(float), np.zeros((0, 3))
    shown = [ShownUpdate("a", 0, rgb, labels, cloud, cloud),
             ShownUpdate("b", 0, rgb, None, nothing, nothing)]
    path = write_scene_picture(tmp_path / "new" / "box.png", found, shown, title="box")
    assert path.stat().st_size > 10_000
    with pytest.raises(ValueError, match="nothing to draw"):
        write_scene_picture(path, found, [], title="box")


def test_points_of_a_cloud_message_are_read_by_name_and_a_missing_field_is_refused() -> None:
    field = message_class("sensor_msgs/msg/PointField")
    layout = [field(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate("xyz")]
    values = np.arange(8, dtype=np.float32).reshape(2, 4)  # the fourth is padding
    cloud = message_class("sensor_msgs/msg/PointCloud2")(
        header=None, height=1, width=2, fields=layout, is_bigendian=False, point_step=16,
        row_step=32, data=values.view(np.uint8).ravel(), is_dense=True)
    np.testing.assert_array_equal(cloud_array(cloud, ("z", "x")), [[2, 0], [6, 4]])
    with pytest.raises(BagError, match="no float32 field sigma, only x, y, z"):
        cloud_array(cloud, ("sigma",))
