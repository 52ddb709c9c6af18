"""The files config/<node>.yaml: every parameter of a node with its default and what it means.

``python -m depth_fusion_ros.ros.parameter_files --write`` makes them anew from the tables.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from depth_fusion_ros.ros.parameters import ParameterTable, Value

FILE_NAMES = {"dual_pixel_depth": "dual_pixel", "focus_sweep_depth": "focus_sweep"}
"""Node → stem of its file, where that is not the node's name."""
SHIPPED: dict[str, dict[str, Value]] = {"dual_pixel_depth": {"model.path": "difuse_net_s"}}
"""Node → what its file sets otherwise than the table."""
_WIDTH = 94


def file_name(table: ParameterTable) -> str:
    """Name of a table's file in config/."""
    return FILE_NAMES.get(table.node_name, table.node_name) + ".yaml"


def configuration(table: ParameterTable) -> str:
    """Text of a table's file."""
    node, shipped = table.node_name, SHIPPED.get(table.node_name, {})
    but = f", except {', '.join(shipped)}" if shipped else ""
    lines = [
        f"# Parameters of {node}. Every one is here, with its default{but}.", "#",
        f"#   ros2 run depth_fusion_ros {node} --ros-args --params-file config/{file_name(table)}",
        "#",
        '# [unit; legal values; when it may change]. "at run time" = `ros2 param set` while the '
        "node runs.",
        "# Doubles need their decimal point: 8.0, not 8. More in docs/parameters.md.",
        "/**:", "  ros__parameters:"]
    group = None
    for row in table.rows.values():
        of = row.name.partition(".")[0] if "." in row.name else ""
        if of != group:
            lines.append("")
            group = of
        facts = [row.unit] if row.unit not in ("", "1") else []
        facts += [row.rule] if row.rule else []
        facts.append("at run time" if row.dynamic else "at start")
        text = f"{row.doc.replace('`', '')} [{'; '.join(facts)}]"
        lines += [f"    # {line}" for line in textwrap.wrap(text, _WIDTH)]
        lines.append(f"    {row.name}: {_yaml(shipped.get(row.name, row.default))}")
    return "\n".join(lines) + "\n"


def _yaml(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def configurations() -> Mapping[str, str]:
    """File name → text, of every node."""
    from depth_fusion_ros.ros.parameter_tables import TABLES

    return {file_name(table): configuration(table) for table in TABLES}


def main(arguments: list[str]) -> int:
    """Print the files, or write them with ``--write [FOLDER]``."""
    folder = Path(arguments[1] if len(arguments) > 1 else "config")
    for name, text in configurations().items():
        if arguments[:1] == ["--write"]:
            (folder / name).write_text(text, encoding="utf-8")
        else:
            print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
