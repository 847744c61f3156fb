"""What an engine is told to load, from `model.source`: one rule for pods and for jobs. Pure."""

from collections.abc import Mapping

from isthmus.api.model_source import hugging_face_name


def model_argument(source: str, *, paths: Mapping[str, str]) -> str:
    """The path that is known of a source, else the Hugging Face name, else the path as it is.

    Args:
        source: `model.source`.
        paths: of sources where the worker runs, `spec.models` of a SlurmCluster; none of pods.
    """
    return paths.get(source) or hugging_face_name(source) or source
