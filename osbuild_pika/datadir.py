"""Finds the folders that lie beside the package: schemas/, devices/, stages/ and their like."""

from pathlib import Path


def data_folder(name: str) -> Path:
    """Return the folder `name` of a checkout (also an editable install), else of an install.

    A wheel carries the folders as data files: below <prefix>/share/osbuild-pika.
    Raises FileNotFoundError if it is in neither.
    """
    beside = Path(__file__).parents[1] / name
    if beside.is_dir():
        return beside
    import sysconfig  # a ms for each question

    installed = Path(sysconfig.get_path("data")) / "share/osbuild-pika" / name
    if installed.is_dir():
        return installed
    raise FileNotFoundError(f"{name}: not beside the package nor in {installed.parent}")
