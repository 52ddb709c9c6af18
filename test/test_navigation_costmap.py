"""The costmap model does what Nav2 does: cases worked by hand, and geometry that always holds."""

from __future__ import annotations

import numpy as np
import pytest
from costmap_helpers import (
    INF,
    NAN,
    PARAMETERS,
    SENSOR,
    changed,
    columns,
    costmap,
    pose,
    row_of_voxels,
    see,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.navigation.costmap import FREE, LETHAL, UNKNOWN, VoxelCostmap
from depth_fusion_ros.navigation.costmap_grid import crossed_voxels, shifted


def test_a_point_marks_the_cell_and_the_voxel_it_lies_in() -> None:
    grid = costmap()
    see(grid, "mark", (1.23, -0.47, 0.9))
    assert grid.marked_cells.tolist() == [[15, 32]]
    assert np.argwhere(grid.marked_voxels).tolist() == [[4, 15, 32]]
    assert grid.costs[15, 32] == LETHAL and grid.costs.sum() == LETHAL
    assert grid.costs.shape == (40, 40) and grid.costs.dtype == np.uint8
    assert grid.cell_of(1.23, -0.47) == (15, 32) and grid.cell_of(2.01, 0) is None
    np.testing.assert_allclose(grid.cell_centres_m(grid.marked_cells), [[1.25, -0.45]])


@settings(max_examples=60, deadline=None)
@given(st.floats(-1.9, 1.9), st.floats(-1.9, 1.9), st.floats(0.0, 1.8), st.floats(-3.1, 3.1))
def test_the_marked_cell_contains_the_point(x: float, y: float, z: float, yaw_rad: float) -> None:
    grid = costmap(voxel_layer__mark__obstacle_max_range=9.0)
    local = (np.array([[x, y, z]]) - SENSOR) @ pose(yaw_rad=yaw_rad)[:3, :3]
    sensor = pose(yaw_rad=yaw_rad)
    # The way through the sensor's frame costs a rounding error, which may cross a height limit.
    point = local @ sensor[:3, :3].T + SENSOR
    grid.receive("mark", local, sensor, 0.0)
    grid.update(0.0)
    if not 0 <= point[0, 2] <= 1.8:
        return
    (centre,) = grid.cell_centres_m(grid.marked_cells)
    assert np.abs(centre - [x, y]).max() <= 0.05 + 1e-9
    (voxel,) = np.argwhere(grid.marked_voxels)
    assert abs((voxel[0] + 0.5) * 0.2 - z) <= 0.1 + 1e-9


def test_a_point_under_the_volume_stands_in_its_lowest_voxel() -> None:
    grid = costmap(voxel_layer__origin_z=0.3)
    see(grid, "mark", (1.0, 0.0, 0.1))
    assert np.argwhere(grid.marked_voxels)[:, 0].tolist() == [0]


def test_a_ray_clears_up_to_two_cells_short_of_its_end() -> None:
    grid = costmap()
    row_of_voxels(grid)
    see(grid, "clear", (1.55, 0.05, 0.5))  # ends in cell 35, less 0.2 m: in cell 33
    assert columns(grid) == list(range(34, 40))


def test_a_ray_clears_a_voxel_and_not_its_column() -> None:
    grid = costmap()
    see(grid, "mark", (1.05, 0.05, 0.5), (1.05, 0.05, 0.9))
    see(grid, "mark")
    see(grid, "clear", (1.95, 0.05, 0.5))
    assert np.argwhere(grid.marked_voxels).tolist() == [[4, 20, 30]]
    assert columns(grid) == [30]


def test_a_ray_that_leaves_the_volume_clears_to_its_border() -> None:
    grid = costmap(voxel_layer__clear__max_obstacle_height=9.0)
    row_of_voxels(grid)
    see(grid, "clear", (9.0, 0.05, 0.5))
    assert columns(grid) == []
    see(grid, "mark", *((0.05, 0.05, 0.5 + 0.2 * i) for i in range(7)))
    see(grid, "mark")
    assert columns(grid) == [20]
    see(grid, "clear", (0.05, 0.05, 9.0))
    assert not grid.marked_voxels.any()


def test_the_line_through_the_voxels_is_bresenhams() -> None:
    crossed = crossed_voxels((1, 3, 5), np.zeros(3), np.array([[4.0, 2.0, 0.0]]), 0, 99)
    assert np.argwhere(crossed).tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 2], [0, 2, 3], [0, 2, 4]]


coordinates = st.tuples(st.floats(0, 29.9), st.floats(0, 24.9), st.floats(0, 15.9))


@settings(max_examples=100, deadline=None)
@given(coordinates, coordinates)
def test_a_line_is_unbroken_and_stays_beside_the_ray(
        a: tuple[float, ...], b: tuple[float, ...]) -> None:
    start, end = np.array(a), np.array(b)
    crossed = np.argwhere(crossed_voxels((16, 25, 30), start, end[None], 0, 99))[:, ::-1]
    steps = np.abs(end.astype(int) - start.astype(int)).max()
    assert len(crossed) == steps + 1
    for corner in (start, end):
        assert (crossed == corner.astype(int)).all(axis=1).any()
    ray = end - start
    share = np.clip((crossed + 0.5 - start) @ ray / max(ray @ ray, 1e-12), 0, 1)
    beside = np.abs(crossed + 0.5 - start - share[:, None] * ray).max(axis=1)
    assert beside.max() <= 1.5


@pytest.mark.parametrize("cloud", [
    [], [(NAN, NAN, NAN)], [(INF, 0.05, 0.5), (NAN, 0.05, 0.5)], [(1.5, 0.05, -INF)],
])
def test_clouds_of_nothing_clear_nothing(cloud: list[tuple[float, ...]]) -> None:
    grid = costmap()
    row_of_voxels(grid)
    grid.receive("clear", np.reshape(cloud, (-1, 3)), pose(), 1.0)
    assert grid.update(1.0)
    assert columns(grid) == list(range(22, 40)) and grid.warnings == []


@pytest.mark.parametrize("sensor", [pose(z=2.1), pose(z=-0.01), pose(x=-2.1), pose(y=2.3)])
def test_a_sensor_outside_the_volume_clears_nothing_and_says_so(sensor: np.ndarray) -> None:
    grid = costmap()
    row_of_voxels(grid)
    see(grid, "clear", (1.95, 0.05, 0.5), sensor=sensor)
    assert columns(grid) == list(range(22, 40))
    (warning,) = grid.warnings
    assert "voxel_layer.clear" in warning and "outside the volume" in warning
    see(grid, "mark", (-0.15, 0.05, 0.5), sensor=pose(x=-1.95, z=2.1))
    assert columns(grid) == [18, *range(22, 40)], "it still marks"
    see(grid, "clear", (1.95, 0.05, 0.5))
    assert grid.warnings == []


def test_an_update_clears_first_and_then_marks() -> None:
    grid = costmap()
    grid.receive("mark", [[1.0, 0, 0]], pose(), 0.0)
    grid.receive("clear", [[1.9, 0, 0]], pose(), 0.0)
    grid.update(0.0)
    assert columns(grid) == [30]


def test_a_cell_needs_more_marked_voxels_than_the_threshold() -> None:
    grid = costmap(voxel_layer__mark_threshold=1)
    see(grid, "mark", (1.05, 0.05, 0.5))
    assert columns(grid) == []
    see(grid, "mark", (1.05, 0.05, 0.9))
    assert columns(grid) == [30]
    see(grid, "mark")
    see(grid, "clear", (1.95, 0.05, 0.5))
    assert columns(grid) == []


def test_unknown_space_is_tracked_where_that_is_asked_for() -> None:
    assert costmap(voxel_layer__unknown_threshold=5).costs.max() == FREE
    grid = costmap(track_unknown_space=True, voxel_layer__unknown_threshold=8)
    assert grid.costs.min() == UNKNOWN
    see(grid, "clear", (1.95, 0.05, 0.5))
    assert grid.costs[20, 30] == UNKNOWN, "9 voxels of 10 are still unknown"
    see(grid, "clear", (1.95, 0.05, 0.7), sensor=pose(z=0.7))
    assert grid.costs[20, 30] == FREE


def test_a_costmap_may_stand_elsewhere_and_have_several_layers() -> None:
    parameters = changed(plugins=["voxel_layer", "second"], second=PARAMETERS["voxel_layer"])
    grid = VoxelCostmap.from_parameters(parameters, layer="second", centre_m=(10.0, -5.0))
    assert grid.layer.name == "second"
    np.testing.assert_allclose(grid.origin_m, [8, -7, 0])
    see(grid, "mark", (10.05, -4.95, 0.5), sensor=pose(x=9.0, y=-5.0))
    assert grid.marked_cells.tolist() == [[20, 20]]


def test_a_window_that_rolls_keeps_marks_where_they_are_and_forgets_what_leaves() -> None:
    grid = costmap()
    see(grid, "mark", (1.25, -0.45, 0.9), (-1.25, 0.35, 0.9))
    assert grid.recentre(1.0, -0.3) == (-3, 10)
    np.testing.assert_allclose(grid.origin_m[:2], (-1.0, -2.3))
    np.testing.assert_allclose(grid.cell_centres_m(grid.marked_cells), [[1.25, -0.45]])
    assert grid.recentre(1.09, -0.39) == (0, 0), "less than a cell"
    grid.recentre(0.0, 0.0)
    np.testing.assert_allclose(grid.cell_centres_m(grid.marked_cells), [[1.25, -0.45]])
    assert grid.marked_voxels.sum() == 1
    assert grid.recentre(50.0, 0.0) == (0, 500) and not grid.marked_cells.size


@settings(max_examples=60, deadline=None)
@given(st.integers(-12, 12), st.integers(-12, 12))
def test_a_shifted_window_shows_the_same_cells(rows: int, moved: int) -> None:
    cells = np.arange(1, 81).reshape(1, 8, 10)
    found = shifted(cells, rows, moved, 0)
    for (_, row, column), value in np.ndenumerate(found):
        from_row, from_column = row + rows, column + moved
        inside = 0 <= from_row < 8 and 0 <= from_column < 10
        assert value == (cells[0, from_row, from_column] if inside else 0)
