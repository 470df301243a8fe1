"""Finds the folders that lie beside the package: schemas/, devices/, stages/ and their like."""

import sysconfig
from pathlib import Path


def data_folder(name: str) -> Path:
    """Return the folder `name` of a checkout (also an editable install), else of an install.

    A wheel carries the folders as data files: below <prefix>/share/osbuild-pika.
    Raises FileNotFoundError if it is in neither.
    """
    places = (
        Path(__file__).parents[1] / name,
        Path(sysconfig.get_path("data")) / "share/osbuild-pika" / name,
    )
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"{name}: not beside the package nor in {places[1].parent}")
