"""Which bags lie in a folder, and what is in them, as one number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from .typestore import BagError

_FILES = (".mcap", ".db3")
_CHUNK_BYTES = 1 << 20


def find_bags(roots: Iterable[Path]) -> dict[str, Path]:
    """Return name → path of every bag in files and folders, sorted by name.

    A folder with metadata.yaml, or any .mcap or .db3 file outside of one, is a bag. Its name is its
    path below the root it was found in, or that of the root itself.

    Raises:
        BagError: a root does not exist, has no bag in it, or two bags have one name.
    """
    found: dict[str, Path] = {}
    for root in roots:
        if not root.exists():
            raise BagError(f"bag {root}: does not exist; give a bag, or a folder of bags")
        if root.is_file() or (root / "metadata.yaml").is_file():
            bags = [root]
        else:
            folders = [path.parent for path in root.rglob("metadata.yaml")]
            files = [path for path in root.rglob("*") if path.suffix in _FILES
                     and not any(folder in path.parents for folder in folders)]
            bags = [*folders, *files]
        if not bags:
            raise BagError(f"bag {root}: is a folder without bags; give a folder that holds "
                           "metadata.yaml, or .mcap or .db3 files")
        for path in bags:
            name = (root.stem if root.is_file() else root.resolve().name) if path == root else str(
                path.relative_to(root).with_suffix(""))
            if name in found and found[name] != path:
                raise BagError(f"bags {found[name]} and {path}: have the same name {name}; rename "
                               "one, or give their common folder")
            found[name] = path
    return dict(sorted(found.items()))


def bag_sha256(path: Path) -> str:
    """Hash of a bag's data: of its files of messages in the order of their names.

    Raises:
        BagError: there are none.
    """
    files = [path] if path.is_file() else sorted(
        file for file in path.rglob("*") if file.suffix in _FILES)
    if not files:
        raise BagError(f"bag {path}: has no .mcap or .db3 file; record or copy it again")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()
