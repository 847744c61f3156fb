"""Writes the files that Envoy reads: complete or not at all, and only when they differ."""

import os
from pathlib import Path


def write(path: Path, text: str) -> bool:
    """Put the text at `path` by a rename in its folder, which is what Envoy watches.

    Returns:
        Whether the file was changed.
    """
    try:
        if path.read_text(encoding="utf-8") == text:
            return False
    except FileNotFoundError:
        pass
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)
    return True
