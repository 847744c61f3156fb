"""How `model.source` is read: a repository of Hugging Face, or a path on the worker."""

from typing import Final

_HUGGING_FACE: Final = "hf://"


def hugging_face_name(source: str) -> str | None:
    """`organisation/name`, with its quantisation if any; None for a path."""
    if not source.startswith(_HUGGING_FACE):
        return None
    return source.removeprefix(_HUGGING_FACE)
