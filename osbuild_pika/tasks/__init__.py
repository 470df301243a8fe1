"""Setup tasks: what an object remembers of what was done for it.

    class Image(SetupTaskMixin):
        stamp_subdir = "images/web"

        @setup_task("build the image")
        async def build(self): ...

    await Image().run_setup_tasks()

docs/reference/tasks.md has the rules. What is where:
mixin.py      SetupTaskMixin: run, inspect             paths.py    PathMixin
task.py       setup_task and TaskWrapper               cross.py    cross_object_dependency
decision.py   whether a task is to run: pure           walk.py     through an object's tasks
stamps.py     how a stamp is kept                      counter.py  which of two ran later
locks.py      one at a time                            log.py      a log for each task
events.py     who is told                              files.py    whole files, safe names
calling.py    async or plain                           mako_tasks.py  templates: the extra `tasks`
"""

from osbuild_pika.tasks.cross import cross_object_dependency
from osbuild_pika.tasks.decision import Stamp
from osbuild_pika.tasks.events import TaskEvent, listening
from osbuild_pika.tasks.locks import BusyError
from osbuild_pika.tasks.mako_tasks import install_mako_task, mako_task
from osbuild_pika.tasks.mixin import ClassInspection, Inspection, SetupTaskMixin
from osbuild_pika.tasks.paths import PathMixin
from osbuild_pika.tasks.task import SkipSetupTask, TaskMethod, TaskWrapper, setup_task
from osbuild_pika.tasks.walk import CycleError

__all__ = [
    "BusyError",
    "ClassInspection",
    "CycleError",
    "Inspection",
    "PathMixin",
    "SetupTaskMixin",
    "SkipSetupTask",
    "Stamp",
    "TaskEvent",
    "TaskMethod",
    "TaskWrapper",
    "cross_object_dependency",
    "install_mako_task",
    "listening",
    "mako_task",
    "setup_task",
]
