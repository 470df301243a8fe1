"""Where the tasks of an object keep what they know."""

from __future__ import annotations

import os
from pathlib import Path

from osbuild_pika.tasks import files


def default_root() -> Path:
    """OSBUILD_PIKA_TASKS, else root's or the user's state directory."""
    given = os.environ.get("OSBUILD_PIKA_TASKS")
    if given:
        return Path(given).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/osbuild-pika/tasks")
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state, "osbuild-pika/tasks")


class PathMixin:
    """An object with directories of its own, below one root.

    Nothing is made by asking for a path.
    """

    @property
    def tasks_root(self) -> Path:
        """What holds stamps/, state/, logs/ and the run counter of all objects that compare."""
        return default_root()

    @property
    def stamp_subdir(self) -> str:
        """A relative path that no other object has, such as "images/web"."""
        raise NotImplementedError(f"{type(self).__name__} needs a stamp_subdir")

    @property
    def stamp_path(self) -> Path:
        """Stamps, and what mako tasks render. Without it, all runs again."""
        return self.tasks_root / "stamps" / files.check_below(self.stamp_subdir)

    @property
    def state_path(self) -> Path:
        """What must not be lost, such as keys."""
        return self.tasks_root / "state" / files.check_below(self.stamp_subdir)

    @property
    def log_path(self) -> Path:
        """<task>.log: when it ran, why, and how it failed."""
        return self.tasks_root / "logs" / files.check_below(self.stamp_subdir)
