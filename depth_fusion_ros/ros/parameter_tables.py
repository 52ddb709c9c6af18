"""The parameter tables of all nodes. Every row has an effect; nothing is declared for later."""

from __future__ import annotations

from collections.abc import Mapping

from depth_fusion_ros.ros.anchor_input import ANCHOR_ROWS
from depth_fusion_ros.ros.lens_parameter_tables import (
    FOCUS_CAMERA_CHECKS,
    FOCUS_CAMERA_ROWS,
    FOCUS_SWEEP_CONTROLLER,
    LENS_STATE_BRIDGE,
)
from depth_fusion_ros.ros.navigation_parameter_rows import NAVIGATION_CHECKS, NAVIGATION_ROWS
from depth_fusion_ros.ros.parameter_rows import (
    CALIBRATION_ROWS,
    DEPTH_ROWS,
    MODEL_ROWS,
    RELIABILITY_ROWS,
    ordered,
)
from depth_fusion_ros.ros.parameters import Parameter, ParameterTable, Value
from depth_fusion_ros.ros.sweep_parameter_tables import FOCUS_SWEEP

_DUAL_PIXEL_ROWS = (
    Parameter("model.path", "", "Network to run: a shipped name (`difuse_net_s`), the path of a "
              "model card (`.json`), or `closed_form` (no weights). Empty = configure fails and "
              "says what to do."),
    Parameter("model.backend", "auto", "Engine that runs the network.",
              choices=("auto", "torch", "onnxruntime")),
    *MODEL_ROWS,
    *RELIABILITY_ROWS,
    Parameter("input.queue_size", 5, "Incomplete input sets kept while their parts arrive; also "
              "the length of the replay queue, and a quarter of the depth of the subscriptions.",
              unit="sets", minimum=1, maximum=10),
    Parameter("input.sync_tolerance_s", 0.0, "Largest difference of the stamps of one set; "
              "0 = stamps must be equal.", unit="s", minimum=0.0, maximum=0.1),
    Parameter("input.sync_timeout_s", 1.0, "A set that is still incomplete after this (wall "
              "time) is dropped and counted.", unit="s", minimum=0.05, maximum=30.0),
    Parameter("input.max_age_s", 0.5, "Sets older than this when their turn comes are dropped "
              "and counted as stale; 0 = never.", unit="s", minimum=0.0, maximum=3600.0,
              dynamic=True),
    Parameter("input.use_rgb", True, "Join `rgb/image_rect` and `rgb/camera_info`; depth is then "
              "on the RGB pixel grid. false = depth on the grid of the left view."),
    Parameter("dp.layout", "pair", "pair = `dp/left/image_raw` and `dp/right/image_raw`; "
              "side_by_side (left half, right half) and column_interleaved (even columns left, "
              "odd columns right) = one image on `dp/image_raw`.",
              choices=("pair", "side_by_side", "column_interleaved")),
    Parameter("dp.parallax_axis", "x", "Image axis along which the two views are displaced.",
              choices=("x", "y")),
    Parameter("dp.swap_views", False, "Exchange left and right (the sign of the disparity).",
              dynamic=True),
    Parameter("dp.linear_input", True, "true = counts are proportional to light; false = "
              "sRGB-encoded views.", dynamic=True),
    Parameter("dp.black_level", 0.0, "Counts of a dark pixel, subtracted first.",
              unit="counts", minimum=0.0, maximum=65535.0, dynamic=True),
    Parameter("dp.white_level", 0.0, "Counts of a saturated pixel; 0 = full scale of the "
              "encoding.", unit="counts", minimum=0.0, maximum=65535.0, dynamic=True),
    Parameter("lens.focus_source", "lens_state", "lens_state = focus from the `lens_state` topic; "
              "constant = `lens.focus_diopters`.", choices=("lens_state", "constant")),
    Parameter("lens.focus_diopters", 0.0, "Focus where `lens.focus_source` is constant; "
              "0 = infinity.", unit="1/m", minimum=0.0, maximum=100.0, dynamic=True),
    Parameter("lens.focal_length_m", 0.0, "Focal length; 0 = from LensState.",
              unit="m", minimum=0.0, maximum=2.0),
    Parameter("lens.f_number", 0.0, "f-number; 0 = from LensState.",
              unit="1", minimum=0.0, maximum=64.0),
    Parameter("lens.pixel_pitch_m", 0.0, "Pitch of the pixels of the published left view along "
              "the parallax axis (after binning); 0 = from LensState.",
              unit="m", minimum=0.0, maximum=0.001),
    Parameter("lens.kappa", 0.4244, "Dual-pixel gain: disparity / signed blur. 0.4244 = ideal "
              "half discs; calibrate it, real sensors have 0.09 to 0.21.",
              unit="1", minimum=0.01, maximum=1.0, dynamic=True),
    Parameter("lens.gain_field", "", "How the gain varies over the image, relative to "
              "`lens.kappa` at its centre: terms of u = x and v = y in -1..1, such as "
              "`{x2: -1.09, x4: 0.58}`; empty = the same everywhere.", dynamic=True),
    *CALIBRATION_ROWS,
    *ANCHOR_ROWS,
    *DEPTH_ROWS,
    *NAVIGATION_ROWS,
    Parameter("replay.process_all", False, "Process every set in order (bounded queue with "
              "back-pressure, nothing is stale) instead of the latest only. For bags."),
)

_SYNTHETIC_CAMERA_ROWS = (
    Parameter("kind", "dual_pixel", "dual_pixel = dual-pixel pair and RGB of changing scenes; "
              "focus = one still scene through a lens that is driven by "
              "`lens_position_diopters` (`sweep/image_raw`).", choices=("dual_pixel", "focus")),
    Parameter("camera", "robot_12mm", "Simulated camera.",
              choices=("phone", "robot_12mm", "robot_16mm", "robot_25mm")),
    Parameter("width_px", 320, "Image width.", unit="px", minimum=32, maximum=4096),
    Parameter("height_px", 240, "Image height.", unit="px", minimum=32, maximum=4096),
    Parameter("rate_hz", 10.0, "Sets published per second.", unit="Hz", minimum=0.01,
              maximum=1000.0, dynamic=True),
    Parameter("frames", 10, "Different frames, rendered at start (about 1 to 2 s each on one CPU "
              "core at 320x240), then published in a loop with new stamps.",
              unit="frames", minimum=1, maximum=10000),
    Parameter("frames_per_scene", 5, "Frames before the scene changes.",
              unit="frames", minimum=1, maximum=10000),
    Parameter("seed", 0, "Seed of the scenes.", minimum=0, maximum=2**31 - 1),
    Parameter("device", "cpu", "Where the simulator renders: cpu, cuda or cuda:N.",
              pattern=r"cpu|cuda(:\d+)?"),
    Parameter("layout", "pair", "As `dp.layout` of dual_pixel_depth.",
              choices=("pair", "side_by_side", "column_interleaved")),
    Parameter("encoding", "mono16", "Encoding of the dual-pixel views (linear counts).",
              choices=("mono16", "mono8")),
    Parameter("frame_id", "camera_rgb_optical_frame", "Optical frame in every header."),
    Parameter("publish_lens_state", True, "false = behave like a camera whose lens is unknown.",
              dynamic=True),
    Parameter("publish_ground_truth", True, "Publish `ground_truth/depth` (32FC1, m).",
              dynamic=True),
    Parameter("max_sets", 0, "Stop publishing after this many sets; 0 = never.",
              unit="sets", minimum=0, maximum=2**31 - 1),
    Parameter("wait_for_subscribers", False, "Send the first set only when every topic has a "
              "subscriber, so that discovery costs a bounded run (`max_sets`) nothing."),
)


def _white_above_black(values: Mapping[str, Value]) -> str:
    black, white = values["dp.black_level"], values["dp.white_level"]
    if white == 0.0 or float(white) > float(black):
        return ""
    return (f"dp.white_level = {white!r} with dp.black_level = {black!r}: white must be above "
            "black; set dp.white_level to 0.0 for the full scale of the encoding")


def _focus_beyond_focal_length(values: Mapping[str, Value]) -> str:
    focal_length_m, diopters = values["lens.focal_length_m"], values["lens.focus_diopters"]
    if float(focal_length_m) * float(diopters) < 1.0:
        return ""
    return (f"lens.focus_diopters = {diopters!r} with lens.focal_length_m = {focal_length_m!r}: "
            "a lens cannot focus nearer than its focal length; check the units (1/m and m)")


DUAL_PIXEL = ParameterTable(
    "dual_pixel_depth",
    _DUAL_PIXEL_ROWS,
    (ordered("depth.min_m", "depth.max_m"), ordered("preview.min_m", "preview.max_m"),
     _white_above_black, _focus_beyond_focal_length, *NAVIGATION_CHECKS),
)
SYNTHETIC_CAMERA = ParameterTable(
    "synthetic_camera", (*_SYNTHETIC_CAMERA_ROWS, *FOCUS_CAMERA_ROWS), FOCUS_CAMERA_CHECKS)
TABLES = (DUAL_PIXEL, FOCUS_SWEEP, SYNTHETIC_CAMERA, LENS_STATE_BRIDGE, FOCUS_SWEEP_CONTROLLER)
