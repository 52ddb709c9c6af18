"""The parameters of the costmap that a command models: those shipped, or a user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from depth_fusion_ros.cli.console import EXIT_UNUSABLE, fail
from depth_fusion_ros.ros.environment import share_file

COSTMAP_YAML = "config/nav2/voxel_layer.yaml"


def costmap_parameters(path: Path | None = None) -> dict[str, Any]:
    """Return the dict under ``local_costmap: local_costmap: ros__parameters:`` of a YAML.

    A file that cannot be read, or that the model of the costmap has no use for, ends the command.

    Args:
        path: None = the shipped file.
    """
    import yaml

    from depth_fusion_ros.evaluation.naive_costmap import sources_of
    from depth_fusion_ros.navigation.costmap import VoxelCostmap

    file = share_file(COSTMAP_YAML) if path is None else path
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        parameters = found["local_costmap"]["local_costmap"]["ros__parameters"]
        sources_of(VoxelCostmap.from_parameters(parameters))
    except (KeyError, TypeError):
        fail(f"{file}: has no local_costmap: local_costmap: ros__parameters:; give the parameters "
             "of a Nav2 local costmap", EXIT_UNUSABLE)
    except OSError as error:
        fail(f"{file}: cannot be read ({error.strerror}); give the YAML of a Nav2 local costmap",
             EXIT_UNUSABLE)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        fail(f"{file}: is no YAML ({' '.join(str(error).split())}); correct it", EXIT_UNUSABLE)
    except ValueError as error:
        fail(f"{file}: {error}", EXIT_UNUSABLE)
    return dict(parameters)
