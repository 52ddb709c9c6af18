"""Record the simulated calibration bench as a bag, as a camera's nodes would record it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depth_fusion_ros.bags import topics as names
from depth_fusion_ros.bags.images import image_message
from depth_fusion_ros.bags.messages import camera_info, lens_state
from depth_fusion_ros.bags.recording import BagWriter

if TYPE_CHECKING:
    from depth_fusion_ros.optics.calibration_board import CalibrationBoard
    from depth_fusion_ros.simulation.lens_bench import BenchCamera, BenchImage, BenchPlan


def record_bench(camera: BenchCamera, board: CalibrationBoard, plan: BenchPlan, path: Path,
                 on_image: Callable[[int], None] = lambda done: None) -> Path:
    """Render a bench and record it; see `record_images`."""
    from depth_fusion_ros.simulation.lens_bench import bench_images

    return record_images(bench_images(camera, board, plan), path, on_image)


def record_images(images: Iterable[BenchImage], path: Path,
                  on_image: Callable[[int], None] = lambda done: None) -> Path:
    """Write a bag; one that is there is replaced.

    Lens states say commanded, approximate dioptres, as a camera does that needs a calibration.

    Raises:
        BagError: `path` holds something that is not a bag.
    """
    with BagWriter(path, metadata={"data": "simulated"}, overwrite=True) as bag:
        for done, image in enumerate(images, 1):
            stamp = bag.start_ns + round(1e9 * image.stamp_s)
            state = _reported(lens_state(image.lens, stamp, bag.frame_id),
                              image.reported_diopters)
            size = image.intrinsics
            info = camera_info(size, size.width_px, size.height_px, stamp, bag.frame_id)
            types = names.SWEEP_INPUT_TOPICS if image.grey is not None else names.INPUT_TOPICS
            contents: dict[str, Any] = {names.LENS_STATE: state}
            if image.grey is not None:
                contents[names.SWEEP_CAMERA_INFO] = info
                contents[names.SWEEP_IMAGE] = image_message(
                    image.grey, "mono8", stamp, bag.frame_id)
            else:
                assert image.left is not None and image.right is not None
                contents[names.DP_CAMERA_INFO] = info
                for topic, view in ((names.LEFT_IMAGE, image.left),
                                    (names.RIGHT_IMAGE, image.right)):
                    contents[topic] = image_message(view, "mono16", stamp, bag.frame_id)
            for topic, message in contents.items():
                bag.write_message(topic, types[topic], message, stamp)
            on_image(done)
    return path


def _reported(state: Any, diopters: float) -> Any:
    """The same state with what the driver reports in place of the truth."""
    for name in ("focus_diopters", "focus_diopters_start", "focus_diopters_end"):
        setattr(state, name, diopters)
    state.focus_diopters_stddev = float("nan")
    state.focus_calibration = state.CALIBRATION_APPROXIMATE
    state.focus_origin = state.ORIGIN_COMMANDED
    state.lens_motion = state.MOTION_UNKNOWN
    return state


__all__ = ["record_bench", "record_images"]
