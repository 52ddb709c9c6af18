"""Message types for bags: ROS 2 Kilted plus this package's own messages, without rclpy.

First screen: `bag_typestore()` gives the one shared type store, `message_class()` a message class,
`BagError` is what every function in `bags/` raises for a bag it cannot read or write.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

PACKAGE_NAME = "depth_fusion_ros"
OWN_MESSAGES = ("LensState", "FrameReport")


class BagError(ValueError):
    """A bag cannot be read or written; the text names the bag, the fault and the remedy."""


@cache
def bag_typestore() -> Typestore:
    """Return the type store of ROS 2 Kilted with LensState and FrameReport registered.

    Raises:
        BagError: the definitions of our messages are not where they belong.
    """
    store = get_typestore(Stores.ROS2_KILTED)
    folder = message_definition_folder()
    for name in OWN_MESSAGES:
        text = (folder / f"{name}.msg").read_text(encoding="utf-8")
        store.register(get_types_from_msg(text, f"{PACKAGE_NAME}/msg/{name}"))
    return store


def message_class(type_name: str) -> Any:
    """Return the message class for e.g. ``sensor_msgs/msg/Image``.

    Raises:
        BagError: the type is unknown to the type store.
    """
    try:
        return bag_typestore().types[type_name]
    except KeyError:
        raise BagError(
            f"message type {type_name!r} is not known: use a type of ROS 2 Kilted or of "
            f"{PACKAGE_NAME} (as package/msg/Name)"
        ) from None


def message_definition_folder() -> Path:
    """Return the folder that holds LensState.msg and FrameReport.msg.

    Looked for in the checkout (``msg/`` beside the Python package), then in
    ``share/depth_fusion_ros/msg`` of every ament prefix and of the Python environment.

    Raises:
        BagError: in none of them; the text lists the folders looked at.
    """
    candidates = [Path(__file__).resolve().parents[2] / "msg"]
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    candidates += [Path(p) / "share" / PACKAGE_NAME / "msg" for p in [*prefixes, sys.prefix]]
    for folder in candidates:
        if all((folder / f"{name}.msg").is_file() for name in OWN_MESSAGES):
            return folder
    raise BagError(
        f"message definitions {', '.join(f'{n}.msg' for n in OWN_MESSAGES)} not found in "
        f"{', '.join(str(c) for c in candidates)}: install the package (pip install . or colcon "
        "build) or run from its checkout"
    )
