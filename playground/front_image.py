"""The image of the front by name, for what needs that one alone."""

from playground import images
from playground.cluster import Playground


def import_front_image(playground: Playground) -> str:
    """Import the images of the working tree; returns the front's name with its content's tag.

    Raises:
        PlaygroundError: as `images.install`.
    """
    return f"{images.REGISTRY}/isthmus-front:{images.install(playground).tag}"
