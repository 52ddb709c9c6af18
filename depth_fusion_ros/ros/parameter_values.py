"""A node's parameters without a node: defaults, then files, then single values, checked as a set.

    values = parameter_values(DUAL_PIXEL, [Path("mine.yaml")], ["depth.max_m:=6.0"])
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from depth_fusion_ros.ros.parameter_files import SHIPPED
from depth_fusion_ros.ros.parameters import ParameterError, ParameterTable


def parameter_values(table: ParameterTable, files: Iterable[Path] = (),
                     assignments: Iterable[str] = ()) -> dict[str, Any]:
    """Return all parameters of a node as it would have them, started with these files and values.

    Args:
        table: of the node; without files, what its shipped file sets holds.
        files: parameter files as ROS reads them (node name or ``/**``, ``ros__parameters``), later
            ones win.
        assignments: NAME:=VALUE as after ``-p``, the value in YAML; they win over files.

    Raises:
        ParameterError: a file that cannot be read, a name the node does not have, a value that
            breaks its rule; one sentence each.
    """
    new: dict[str, Any] = dict(SHIPPED.get(table.node_name, {}))
    for path in files:
        new.update(_from_file(path, table.node_name))
    for text in assignments:
        name, sign, value = text.partition(":=")
        if not sign:
            raise ParameterError(f"parameter {text!r}: must be NAME:=VALUE, such as "
                                 "depth.max_m:=6.0")
        new[name] = _yaml(value, f"parameter {text!r}")
    unknown = [name for name in new if name not in table.rows
               and not name.startswith(("qos_overrides.", "use_sim_time"))]
    if unknown:
        raise ParameterError(f"{', '.join(unknown)}: {table.node_name} has no such parameter; see "
                             "docs/parameters.md")
    ours = {name: value for name, value in new.items() if name in table.rows}
    problems = table.problems(ours)
    if problems:
        raise ParameterError("; ".join(problems))
    return {**table.defaults(), **ours}


def _from_file(path: Path, node_name: str) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ParameterError(f"parameter file {path}: cannot be read ({error.strerror}); give the "
                             "path of a YAML file") from None
    content = _yaml(text, f"parameter file {path}")
    if not isinstance(content, dict):
        raise ParameterError(f"parameter file {path}: must map node names to ros__parameters; copy "
                             "one of config/")
    found: dict[str, Any] = {}
    for key, section in content.items():
        if key.strip("/") in ("**", node_name) or key.endswith(f"/{node_name}"):
            parameters = section.get("ros__parameters") if isinstance(section, dict) else None
            if not isinstance(parameters, dict):
                raise ParameterError(f"parameter file {path}: {key} has no ros__parameters; put "
                                     "the parameters under it")
            found.update(_flat(parameters))
    return found


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found.update(_flat(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def _yaml(text: str, name: str) -> Any:
    try:
        return yaml.safe_load(text) if text else ""
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ParameterError(f"{name}: is no YAML ({reason}); correct it") from None
