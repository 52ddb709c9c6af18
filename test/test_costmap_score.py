"""What a bag's costmap is scored with, on sequences whose outcome can be said by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from box_before_wall import CAMERA, PARAMETERS, POSE, points, truth

from depth_fusion_ros.evaluation.costmap_behaviour import ReceivedFrame, scene_outcome
from depth_fusion_ros.evaluation.costmap_score import CostmapScore, Update, costmap_figures
from depth_fusion_ros.evaluation.costmap_truth import camera_pose
from depth_fusion_ros.evaluation.navigation_counts import NavigationClouds

PERIOD_S = 0.2
WITHOUT, WITH = truth(), truth(thing=True)
NOTHING = NavigationClouds(np.zeros((0, 4), np.float32), np.zeros((0, 3), np.float32), True)


def seen(depth_m: np.ndarray) -> NavigationClouds:
    """The clouds of an estimate that is this depth."""
    cloud = points(depth_m)
    return NavigationClouds(cloud, cloud[:, :3].copy(), False)


def scored(*frames: tuple[np.ndarray | None, NavigationClouds | None], poses: list | None = None
           ) -> dict:
    """Counts of frames (truth, clouds of ours), five a second."""
    score = CostmapScore(PARAMETERS, 100.0)
    for number, (truth_m, clouds) in enumerate(frames):
        pose = POSE if poses is None else poses[number]
        score.add(Update(100.0 + PERIOD_S * number, pose, CAMERA, clouds, truth_m))
    return score.counts()


def figures(*frames: tuple[np.ndarray | None, NavigationClouds | None], **more) -> dict:
    return costmap_figures([scored(*frames, **more)])


def test_the_truth_itself_is_marked_and_cleared_at_once_and_marks_nothing_falsely() -> None:
    depths = [WITHOUT, WITH, WITH, WITH, WITHOUT, WITHOUT]
    found = figures(*((depth, seen(depth)) for depth in depths))
    assert found["false_share"] == 0 and found["missed_share"] == 0 and found["why"] == {}
    assert found["mark_updates_worst"] == 1 and found["mark_s_worst"] == 0
    assert found["mark_never"] == 0 and found["clear_never"] == 0
    assert found["clear_updates_worst"] == 1 and found["clear_cells"] >= 3


def test_a_box_that_is_marked_two_updates_late_took_three_updates() -> None:
    late = [(WITHOUT, seen(WITHOUT)), (WITH, seen(WITHOUT)), (WITH, seen(WITHOUT)),
            (WITH, seen(WITH))]
    found, counts = figures(*late), scored(*late)
    assert found["mark_updates_median"] == 1, "the wall was marked at once"
    assert found["mark_updates_worst"] == 3
    assert found["mark_s_worst"] == pytest.approx(0.4)
    assert set(counts["mark"]["updates"]) == {"1", "3"}
    box = counts["mark"]["updates"]["3"]
    assert box == counts["mark"]["ms"]["400"] and 3 <= box <= 5  # 0.15 m in cells of 0.05 m
    assert counts["missed_cells"] == 2 * box and found["mark_never"] == 0


def test_a_box_that_is_never_marked_counts_as_never_and_not_in_the_median() -> None:
    found = figures(*[(WITHOUT, seen(WITHOUT)), (WITH, seen(WITHOUT)), (WITH, seen(WITHOUT)),
                      (WITHOUT, seen(WITHOUT))])
    assert found["mark_updates_worst"] == 1 and 3 <= found["mark_never"] <= 5
    assert "nothing that was marked goes away" in found["why"]["clear"]


def test_a_box_whose_marks_stay_two_updates_took_three_to_clear_or_never() -> None:
    stays = [(WITH, seen(WITH)), (WITH, seen(WITH)), (WITHOUT, None), (WITHOUT, None)]
    found = figures(*stays, (WITHOUT, seen(WITHOUT)))
    assert found["clear_updates_median"] == found["clear_updates_worst"] == 3
    assert found["clear_s_worst"] == pytest.approx(0.4) and found["clear_never"] == 0
    marks_left = found["false_cells"]
    assert marks_left == 2 * found["clear_cells"], "until then they are false marks"
    kept = figures(*stays)
    assert kept["clear_cells"] == 0 and kept["clear_never"] == found["clear_cells"]
    assert math.isnan(kept["clear_updates_median"])
    assert "was ever cleared" in kept["why"]["clear"]


def test_a_box_that_comes_back_before_it_was_cleared_was_never_cleared() -> None:
    found = figures((WITH, seen(WITH)), (WITHOUT, None), (WITH, None), (WITH, seen(WITH)))
    assert found["clear_cells"] == 0 and found["clear_never"] >= 3


def test_marks_in_cells_that_are_seen_open_are_false_and_counted_in_each_update() -> None:
    ghosts = np.array([[0.0, 0.0, 1.02, 0.01], [0.03, 0.0, 1.02, 0.01]], np.float32)
    cloud = NavigationClouds(ghosts, np.zeros((0, 3), np.float32), False)
    found = figures((WITHOUT, cloud), (WITHOUT, cloud))
    assert found["false_cells"] == 4 and found["open_cells"] > 400
    assert found["false_share"] == 4 / found["open_cells"]
    assert found["missed_share"] == 1 and "none of" in found["why"]["mark"]


def test_false_marks_are_those_of_nav2_check() -> None:
    """The same share, of the same costmap, whatever else the two commands measure."""
    shaken = WITH.copy()
    shaken[:, 10:20] *= np.float32(0.6)
    frames = [(WITHOUT, seen(WITHOUT)), (WITH, seen(shaken)), (WITH, seen(WITH)), (WITHOUT, None)]
    ours = scene_outcome([
        ReceivedFrame(100 + PERIOD_S * n, depth, clouds and clouds.obstacles,
                      clouds and clouds.clearing, None)
        for n, (depth, clouds) in enumerate(frames)], CAMERA, None, PARAMETERS, POSE).ours
    assert figures(*frames)["false_share"] == ours.false_share > 0


def test_one_frame_has_shares_of_cells_but_no_times() -> None:
    found = figures((WITH, seen(WITH)))
    assert found["false_share"] == 0 and found["missed_share"] == 0
    assert math.isnan(found["mark_updates_median"]) and found["mark_cells"] == 0
    assert "one frame" in found["why"]["mark"] and "one frame" in found["why"]["clear"]


def test_a_sparse_reference_has_surfaces_but_calls_no_cell_free() -> None:
    sparse = np.full_like(WITH, np.nan)
    sparse[::4, ::4] = WITH[::4, ::4]
    found = figures((sparse, NOTHING), (sparse, NOTHING))
    assert found["missed_share"] == 1 and found["mark_never"] > 0
    assert math.isnan(found["false_share"]) and found["open_cells"] == 0
    assert "less than 50 %" in found["why"]["false"] and "false" not in figures(
        (WITH, NOTHING), (WITH, NOTHING))["why"]


def test_a_frame_without_reference_is_an_update_that_changes_nothing_of_the_truth() -> None:
    found = figures((WITH, NOTHING), (None, NOTHING), (WITH, seen(WITH)))
    assert found["updates"] == 3 and found["with_reference"] == 2
    assert found["mark_updates_median"] == found["mark_updates_worst"] == 3


def test_no_reference_at_all_is_said() -> None:
    found = figures((None, NOTHING))
    assert math.isnan(found["false_share"]) and "no frame has a reference" in found["why"]["map"]


def test_what_is_unknown_or_far_in_the_reference_is_no_surface() -> None:
    depth = WITHOUT.copy()
    depth[:, :20], depth[:, 60:] = np.nan, np.inf
    whole = scored((WITHOUT, NOTHING))
    part = scored((depth, NOTHING))
    assert 0 < part["surface_cells"] < 0.6 * whole["surface_cells"]
    unknown = depth.copy()
    unknown[:, 60:] = np.nan
    assert scored((unknown, NOTHING))["open_cells"] < part["open_cells"], "+Inf is seen to be free"


def test_the_map_follows_a_camera_that_drives_up_to_the_wall() -> None:
    """4 m in all, more than the half of the map that it began with."""
    poses, frames = [], []
    for step in range(9):
        pose = POSE.copy()
        pose[0, 3] = 0.5 * step
        poses.append(pose)
        depth = truth(wall_m=5.31 - 0.5 * step)
        frames.append((depth, seen(depth)))
    found = figures(*frames, poses=poses)
    assert found["surface_cells"] > 50 and found["missed_share"] == 0
    assert found["false_share"] == 0 and found["mark_updates_worst"] == 1


def test_what_waits_to_be_marked_and_leaves_the_map_was_never_marked() -> None:
    far = POSE.copy()
    far[1, 3] = 20.0
    found = figures((WITH, NOTHING), (None, NOTHING), (WITH, seen(WITH)), poses=[POSE, far, POSE])
    assert found["mark_never"] > 0 and found["mark_updates_worst"] == 1
    assert found["mark_never"] == found["mark_cells"]


def test_a_camera_above_the_volume_is_named_because_nothing_clears() -> None:
    found = figures((WITHOUT, seen(WITHOUT)), (WITHOUT, seen(WITHOUT)),
                    poses=[camera_pose(3.0)] * 2)
    assert "2 of 2 updates the camera was outside the heights" in found["why"]["map"]


def test_several_bags_add_up_in_any_order() -> None:
    prompt = scored((WITH, seen(WITH)), (WITH, seen(WITH)))
    late = scored((WITH, NOTHING), (WITH, seen(WITH)), (WITHOUT, seen(WITHOUT)))
    both = costmap_figures([prompt, late])
    assert both == costmap_figures([late, prompt])
    cells = costmap_figures([prompt])["mark_cells"]
    behind = late["mark"]["updates"]["1"]  # the wall that the box had hidden
    assert both["mark_cells"] == 2 * cells + behind and late["mark"]["updates"]["2"] == cells
    assert both["mark_updates_median"] == 1 and both["mark_updates_worst"] == 2
    assert costmap_figures([prompt, late, late])["mark_updates_median"] == 2
    assert both["clear_cells"] == costmap_figures([late])["clear_cells"] > 0
