"""Setup tasks that render templates, and one that installs what they rendered.

Mako is imported where a template is used, and nowhere else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osbuild_pika.engine import disk
from osbuild_pika.errors import HostError, InputError
from osbuild_pika.tasks import cross, files, walk
from osbuild_pika.tasks.decision import Past
from osbuild_pika.tasks.task import TaskWrapper, take_order
from osbuild_pika.tasks.walk import Wanted

if TYPE_CHECKING:
    from osbuild_pika.tasks.mixin import SetupTaskMixin

MAX_BYTES = 16 * 1024 * 1024  # of a rendered file that is installed


class mako_task(TaskWrapper):  # noqa: N801 - it is used like a decorator
    """Render a template to <stamp_path>/<output>.

        hosts = mako_task("hosts.mako", domain="example.org", peers=lambda obj: obj.peers())

    template: a file in `templates` beside the class's module, or beside it. output: a relative
    path; without, the template's without `.mako`. injections: what the template is given; a
    function is called with the object. It is given `instance`, the object, too. Those that begin
    with `_` are the task's own: _order, _before.

    The file is replaced in one step, and only if it differs. The task runs again if what it would
    render differs (if the template has a def named `hash`: what that renders), or the file is gone.
    """

    def __init__(self, template: str, output: str | None = None, **injections: Any) -> None:
        place = take_order(injections.pop("_order", None), injections.pop("_before", None))
        self.template = files.check_below(template)
        self.output = files.check_below(output or template.removesuffix(".mako"))
        self.injections = injections
        super().__init__(self._render, f"render {template}", order=place, name="mako")
        self._hash = self._what_counts
        self._invalidator = self._is_there

    def _render(self, obj: SetupTaskMixin) -> None:
        content = self._rendered(obj).encode()
        with disk.explained(str(self.path(obj))):
            files.make_directories(obj.stamp_path)
            files.update_below(obj.stamp_path, self.output, content)

    def path(self, obj: SetupTaskMixin) -> Path:
        """Where the rendered file is."""
        return obj.stamp_path / self.output

    def _what_counts(self, obj: SetupTaskMixin) -> str:
        return self._rendered(obj, "hash")

    def _is_there(self, obj: SetupTaskMixin) -> bool:
        return self.path(obj).is_file()

    def _rendered(self, obj: SetupTaskMixin, part: str = "") -> str:
        """A def of the template, if it has it; else all of it."""
        template = self._template(obj)
        if part and template.has_def(part):
            template = template.get_def(part)
        given = {
            name: value(obj) if callable(value) else value
            for name, value in self.injections.items()
        }
        return str(template.render(instance=obj, **given))

    def _template(self, obj: SetupTaskMixin) -> Any:
        try:
            from mako import exceptions, lookup
        except ImportError:
            what = "mako is not installed: pip install 'osbuild-pika[tasks]'"
            raise HostError(f"{self.name}: {what}") from None
        module = sys.modules[(self._owner or type(obj)).__module__]
        beside = Path(module.__file__ or "").parent
        directories = [str(beside / "templates"), str(beside)]
        try:
            found = lookup.TemplateLookup(directories, strict_undefined=True)
            return found.get_template(self.template)
        except exceptions.TopLevelLookupException:
            raise InputError(f"{self.name}: no template {self.template} below {beside}") from None


class install_mako_task(TaskWrapper):  # noqa: N801 - it is used like a decorator
    """Put what the mako tasks of a related object rendered into this object's file system.

        install = install_mako_task("model")

    The object has `filesystem_access()`, an async context manager that gives the path of a root.
    Files go to their `output` below it, whatever links are there.
    relationship: an attribute, or a method; "self": the object itself. cross_dependency: run again
    if one of these tasks ran later. relationship_ready: bring the other to its use first
    (`async_ready`); not possible for "self". order, before: as of setup_task.
    """

    def __init__(
        self,
        relationship: str,
        cross_dependency: bool = True,
        *,
        relationship_ready: bool = True,
        **place: Any,
    ) -> None:
        if relationship == "self" and relationship_ready:
            raise TypeError("what is installed from itself takes relationship_ready=False")
        self.relationship = relationship
        self.cross_dependency = cross_dependency
        self.relationship_ready = relationship_ready
        order = take_order(place.pop("order", None), place.pop("before", None))
        if place:
            raise TypeError(f"install_mako_task takes no {', '.join(place)}")
        super().__init__(self._install, "install what was rendered", order=order, name="install")

    async def prepare(self, obj: SetupTaskMixin, expensive: bool) -> None:
        if self.relationship_ready:
            await self._other(obj).async_ready()

    async def others(self, obj: SetupTaskMixin, expensive: bool) -> tuple[Past, ...]:
        other = self._other(obj)
        if not self.cross_dependency or other is obj:
            return ()
        rendering = {task.name for task in _mako_tasks(other)}
        found = await walk.look(other, Wanted(expensive))
        of = f"of {other.stamp_subdir}"
        return tuple(
            past._replace(name=f"{judged.name} {of}")
            for judged in found
            for past in judged.pasts
            if judged.name in rendering
        )

    async def _install(self, obj: SetupTaskMixin) -> None:
        if self.relationship_ready:  # also where it is called directly
            await self._other(obj).async_ready()
        access: Callable[[], AbstractAsyncContextManager[Any]] = obj.filesystem_access  # type: ignore[attr-defined]
        other = self._other(obj)
        async with access() as root:
            for task in _mako_tasks(other):
                with disk.explained(f"{obj.stamp_subdir}: {task.output}"):
                    with open(task.path(other), "rb") as file:
                        content = file.read(MAX_BYTES)
                    files.update_below(Path(root), task.output, content)

    def _other(self, obj: SetupTaskMixin) -> SetupTaskMixin:
        if self.relationship == "self":
            return obj
        other = cross.related(obj, self.relationship)
        if other is None:
            raise InputError(f"{obj.stamp_subdir} has no {self.relationship} to install from")
        return other


def _mako_tasks(obj: SetupTaskMixin) -> list[mako_task]:
    return [task for task in obj.setup_tasks if isinstance(task, mako_task)]
