"""The parameter tables of all nodes. Every row has an effect; nothing is declared for later."""

from __future__ import annotations

from collections.abc import Mapping

from depth_fusion_ros.ros.parameters import CrossCheck, Parameter, ParameterTable, Value

_DEVICE = r"auto|cpu|cuda(:\d+)?"

_DUAL_PIXEL_ROWS = (
    Parameter("model.path", "", "Network to run: a shipped name (`difuse_net_s`), the path of a "
              "model card (`.json`), or `closed_form` (no weights). Empty = configure fails and "
              "says what to do."),
    Parameter("model.sha256", "", "Expected checksum of the weights; empty = the card's.",
              pattern=r"([0-9a-f]{64})?"),
    Parameter("model.backend", "auto", "Engine that runs the network.",
              choices=("auto", "torch", "onnxruntime")),
    Parameter("model.precision", "fp32", "Arithmetic of the network; fp16 and bf16 are for GPUs.",
              choices=("fp32", "fp16", "bf16")),
    Parameter("model.threads", 0, "CPU threads of the engine; 0 = the engine's choice.",
              unit="threads", minimum=0, maximum=256),
    Parameter("model.warmup_iterations", 3, "Runs at configure, before the first image.",
              unit="runs", minimum=0, maximum=50),
    Parameter("model.warmup_width_px", 320, "Image width of the warm-up runs; use your camera's.",
              unit="px", minimum=32, maximum=8192),
    Parameter("model.warmup_height_px", 240, "Image height of the warm-up runs.",
              unit="px", minimum=32, maximum=8192),
    Parameter("device", "auto", "Where the network runs: auto, cpu, cuda or cuda:N.",
              pattern=_DEVICE),
    Parameter("allow_cpu_fallback", True, "Run on the CPU where `device` is a GPU that is not "
              "usable (WARN in diagnostics); false = configure fails."),
    Parameter("input.reliability", "auto", "QoS of the subscriptions. auto = reliable until a "
              "best-effort publisher shows up, then best effort.",
              choices=("auto", "best_effort", "reliable")),
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
    Parameter("lens.focus_sigma_diopters", 0.0, "Standard deviation of the focus itself (how well "
              "the lens returns to a position); added to sigma. A LensState with a "
              "focus_diopters_stddev says its own.", unit="1/m", minimum=0.0, maximum=5.0,
              dynamic=True),
    Parameter("lens.diopter_scale", 1.0, "Correction of reported focus: scale * D + offset.",
              unit="1", minimum=0.2, maximum=5.0, dynamic=True),
    Parameter("lens.diopter_offset", 0.0, "See `lens.diopter_scale`.",
              unit="1/m", minimum=-8.0, maximum=8.0, dynamic=True),
    Parameter("lens.allow_nominal", False, "Publish metres although the lens reports its "
              "dioptres as not calibrated (scale_state NOMINAL)."),
    Parameter("depth.min_m", 0.15, "Nearer depths are published as -Inf (REP-117).",
              unit="m", minimum=0.05, maximum=100.0, dynamic=True),
    Parameter("depth.max_m", 8.0, "Farther depths are published as +Inf (REP-117).",
              unit="m", minimum=0.05, maximum=100.0, dynamic=True),
    Parameter("depth.max_sigma_ratio", 0.5, "Pixels with sigma / depth above this become NaN.",
              unit="1", minimum=0.01, maximum=10.0, dynamic=True),
    Parameter("depth.edge_filter_px", 1, "Radius of the flying-pixel filter at depth edges; "
              "0 = off.", unit="px", minimum=0, maximum=8, dynamic=True),
    Parameter("preview.min_m", 0.2, "Depth of the warm end of `depth_registered/preview`.",
              unit="m", minimum=0.05, maximum=100.0, dynamic=True),
    Parameter("preview.max_m", 5.0, "Depth of the cold end of `depth_registered/preview`.",
              unit="m", minimum=0.05, maximum=100.0, dynamic=True),
    Parameter("budget.latency_ms", 100.0, "Diagnostics warn while the 95th percentile of the "
              "latency is above this; 0 = never. Reports only.",
              unit="ms", minimum=0.0, maximum=60000.0, dynamic=True),
    Parameter("replay.process_all", False, "Process every set in order (bounded queue with "
              "back-pressure, nothing is stale) instead of the latest only. For bags."),
    Parameter("diagnostics.period_s", 1.0, "Period of `/diagnostics`.",
              unit="s", minimum=0.1, maximum=60.0),
    Parameter("autostart", True, "Configure and activate without being asked; false where a "
              "lifecycle manager does it."),
)

_SYNTHETIC_CAMERA_ROWS = (
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


def _ordered(low: str, high: str) -> CrossCheck:
    def check(values: Mapping[str, Value]) -> str:
        if float(values[low]) < float(values[high]):
            return ""
        return (f"{low} = {values[low]!r} with {high} = {values[high]!r}: {low} must be smaller; "
                "set both at once (set_parameters_atomically)")

    return check


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
    (_ordered("depth.min_m", "depth.max_m"), _ordered("preview.min_m", "preview.max_m"),
     _white_above_black, _focus_beyond_focal_length),
)
SYNTHETIC_CAMERA = ParameterTable("synthetic_camera", _SYNTHETIC_CAMERA_ROWS)
TABLES = (DUAL_PIXEL, SYNTHETIC_CAMERA)
