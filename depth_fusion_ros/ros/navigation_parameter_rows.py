"""Parameter rows of what the depth nodes publish for navigation, and the options they make."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.navigation.cloud import CloudOptions
from depth_fusion_ros.navigation.floor import Floor
from depth_fusion_ros.navigation.scan import LEVEL_FROM_OPTICAL, ScanOptions
from depth_fusion_ros.ros.parameter_rows import ordered
from depth_fusion_ros.ros.parameters import Parameter, Value

NAVIGATION_ROWS = (
    Parameter("cloud.enable_obstacles", True, "Publish `points/obstacles`.", dynamic=True),
    Parameter("cloud.enable_clearing", True, "Publish `points/clearing`.", dynamic=True),
    Parameter("cloud.max_rate_hz", 10.0, "Most clouds and scans per second, by their stamps; "
              "0 = one for each depth image.", unit="Hz", minimum=0.0, maximum=1000.0,
              dynamic=True),
    Parameter("cloud.max_bytes", 235000, "Most bytes of `points/obstacles` and of "
              "`points/clearing`; voxels and squares grow until they fit. Nav2 subscribes best "
              "effort, and on stock Fast DDS the first of the two is lost where they exceed 0.5 MB "
              "together.",
              unit="bytes", minimum=10000, maximum=50000000, dynamic=True),
    Parameter("cloud.voxel_m", 0.05, "Edge of the smallest voxel of `points/obstacles`.",
              unit="m", minimum=0.01, maximum=1.0, dynamic=True),
    Parameter("cloud.voxel_sigma_scale", 0.2, "A point's voxel grows to this many of its standard "
              "deviations.", unit="1", minimum=0.0, maximum=10.0, dynamic=True),
    Parameter("cloud.max_sigma_ratio", 0.15, "Pixels with sigma / depth above this do not mark, "
              "and give no range in `scan`.", unit="1", minimum=0.01, maximum=1.0, dynamic=True),
    Parameter("cloud.use_prior_only", False, "Depths that rest on a prior alone mark too; they "
              "never clear.", dynamic=True),
    Parameter("cloud.silent_when_blind", True, "Publish no cloud for a frame in which nothing was "
              "measured, and no scan without one measured direction, so that a costmap with "
              "expected_update_rate goes stale and stops the robot; false = publish empty clouds "
              "and a scan of NaN.", dynamic=True),
    Parameter("cloud.frame", "", "Robot frame of the clouds, through tf2; empty = the optical "
              "frame of the depth image. With a frame, set sensor_frame of Nav2's sources to the "
              "optical frame: rays start at the sensor, not at the robot's origin."),
    Parameter("cloud.max_incidence_deg", 82.0, "Points on a surface seen under a larger angle from "
              "its normal do not mark: networks draw such veils from the edge of a thing back to "
              "what is behind it; 90 = all mark.", unit="deg", minimum=45.0, maximum=90.0,
              dynamic=True),
    Parameter("cloud.surer_square_px", 16, "A point up to two sigma behind a surer one (at most "
              "0.8 of its sigma of inverse depth) in the same or a neighbouring square of this "
              "side does not mark: it may be the same surface, which is marked already; 0 = all "
              "mark.", unit="px", minimum=0, maximum=1000, dynamic=True),
    Parameter("floor.camera_height_m", 0.0, "Height of the camera above a level floor; 0 = not "
              "known. With it, points that may be floor do not mark: those below `floor.cut_m` "
              "when they are `floor.sigmas` standard deviations farther. Tilt: `scan.pitch_rad`, "
              "`scan.roll_rad`.", unit="m", minimum=0.0, maximum=100.0, dynamic=True),
    Parameter("floor.cut_m", 0.08, "What is lower counts as floor; min_obstacle_height of Nav2's "
              "marking source.", unit="m", minimum=0.0, maximum=10.0, dynamic=True),
    Parameter("floor.sigmas", 2.0, "How many standard deviations a depth is given to be wrong by "
              "before it may mark what could be floor.", unit="1", minimum=0.0, maximum=10.0,
              dynamic=True),
    Parameter("clearing.range_m", 4.0, "Length of the longest clearing ray.", unit="m",
              minimum=0.5, maximum=30.0, dynamic=True),
    Parameter("clearing.max_sigma_ratio", 0.3, "Pixels with sigma / depth above this do not clear; "
              "rays end two sigma before the surface, so they may be vaguer than what marks.",
              unit="1", minimum=0.01, maximum=1.0, dynamic=True),
    Parameter("clearing.stride", 8, "Side of the squares of pixels that give one clearing ray "
              "each.", unit="px", minimum=1, maximum=64, dynamic=True),
    Parameter("scan.enable", False, "Publish `scan` (LaserScan).", dynamic=True),
    Parameter("scan.frame_id", "camera_link", "Frame of `scan`: at the camera, level, x forward.",
              dynamic=True),
    Parameter("scan.min_height_m", -0.1, "Lower end of the band of heights above the camera.",
              unit="m", minimum=-10.0, maximum=10.0, dynamic=True),
    Parameter("scan.max_height_m", 0.1, "Upper end of the band.",
              unit="m", minimum=-10.0, maximum=10.0, dynamic=True),
    Parameter("scan.pitch_rad", 0.0, "How far the camera looks down, for `scan` and `floor`.",
              unit="rad", minimum=-1.57, maximum=1.57, dynamic=True),
    Parameter("scan.roll_rad", 0.0, "How far the camera is turned about its axis, its right side "
              "down.", unit="rad", minimum=-3.15, maximum=3.15, dynamic=True),
)


def cloud_options(values: Mapping[str, Any]) -> CloudOptions:
    """Options of the clouds out of a node's parameters."""
    up = level_from_optical(values)[2]
    return CloudOptions(
        voxel_m=values["cloud.voxel_m"], voxel_sigma_scale=values["cloud.voxel_sigma_scale"],
        max_bytes=values["cloud.max_bytes"], max_sigma_ratio=values["cloud.max_sigma_ratio"],
        use_prior_only=values["cloud.use_prior_only"],
        max_incidence_deg=values["cloud.max_incidence_deg"],
        surer_square_px=values["cloud.surer_square_px"],
        floor=Floor(values["floor.camera_height_m"], (float(up[0]), float(up[1]), float(up[2])),
                    values["floor.cut_m"], values["floor.sigmas"]),
        clearing_max_sigma_ratio=values["clearing.max_sigma_ratio"],
        clearing_range_m=values["clearing.range_m"], clearing_stride=values["clearing.stride"],
        min_m=values["depth.min_m"])


def scan_options(values: Mapping[str, Any]) -> ScanOptions:
    """Options of the scan; it looks as far as depth is measured."""
    return ScanOptions(
        min_height_m=values["scan.min_height_m"], max_height_m=values["scan.max_height_m"],
        range_min_m=values["depth.min_m"], range_max_m=values["depth.max_m"],
        min_m=values["depth.min_m"], max_sigma_ratio=values["cloud.max_sigma_ratio"])


def level_from_optical(values: Mapping[str, Any]) -> NDArray[np.float64]:
    """(3, 3) rotation from the optical frame to the level frame of the scan."""
    pitch, roll = values["scan.pitch_rad"], values["scan.roll_rad"]
    c, s = math.cos(pitch), math.sin(pitch)
    about_left = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])  # down with a positive angle
    c, s = math.cos(roll), math.sin(roll)
    about_ahead = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return np.asarray(about_left @ about_ahead @ LEVEL_FROM_OPTICAL)


def clearing_beyond_nearest(values: Mapping[str, Value]) -> str:
    """Rule that a clearing ray is longer than the nearest depth."""
    nearest, reach = values["depth.min_m"], values["clearing.range_m"]
    if float(nearest) < float(reach):
        return ""
    return (f"clearing.range_m = {reach!r} with depth.min_m = {nearest!r}: rays must reach beyond "
            "the nearest depth; set both at once (set_parameters_atomically)")


NAVIGATION_CHECKS = (ordered("scan.min_height_m", "scan.max_height_m"), clearing_beyond_nearest)
