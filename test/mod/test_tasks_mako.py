"""Tasks that render templates, and the one that installs what they rendered."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from inodes import inode
from task_objects import Recorder, call, do, heir, made, predicted, reasons, recording, run

from osbuild_pika.errors import HostError, InputError
from osbuild_pika.tasks import install_mako_task, mako_task

pytest.importorskip("mako", reason="mako is not installed")

HOSTS = "127.0.0.1 ${instance.says['name']}.${domain}\n"
COUNTED = '<%def name="hash()">${instance.says["version"]}</%def>${instance.says["noise"]}'


class Machine(Recorder):
    """Has a file system, and a model whose rendered files it installs."""

    def __init__(self, root: Path, model: Recorder | None = None) -> None:
        super().__init__(root, "machine")
        self.model = model

    @contextlib.asynccontextmanager
    async def filesystem_access(self) -> AsyncIterator[Path]:
        files = self.root / "machine"
        files.mkdir(exist_ok=True)
        yield files


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The templates beside a module of this name."""
    module = ModuleType("with_templates")
    module.__file__ = str(tmp_path / "module/with_templates.py")
    monkeypatch.setitem(sys.modules, "with_templates", module)
    directory = tmp_path / "module/templates"
    directory.mkdir(parents=True)
    (directory / "hosts.mako").write_text(HOSTS)
    (directory / "counted.mako").write_text(COUNTED)
    return directory


def model(tmp_path: Path, **tasks: Any) -> Recorder:
    cls = made(__module__="with_templates", **tasks)
    obj = cls(tmp_path / "tasks", "model")
    obj.says |= {"name": "web", "noise": "1", "version": "1"}
    return obj


def hosts() -> mako_task:
    return mako_task("hosts.mako", "etc/hosts", domain="example.org")


def test_a_template_is_rendered_with_the_object_and_what_is_given(
    tmp_path: Path, templates: Path
) -> None:
    task = mako_task("hosts.mako", domain=lambda obj: obj.says["name"] + ".org")
    obj = model(tmp_path, hosts=task)
    assert do(obj.run_setup_tasks()) == ("hosts",)
    assert (obj.stamp_path / "hosts").read_text() == "127.0.0.1 web.web.org\n"


def test_it_is_rendered_again_if_it_would_differ_and_only_then(
    tmp_path: Path, templates: Path
) -> None:
    obj = model(tmp_path, hosts=hosts(), b=recording("b"))
    path = obj.stamp_path / "etc/hosts"
    run(obj)
    first = inode(path)
    assert predicted(obj) == run(obj) == []
    call(obj, "hosts")
    assert inode(path) == first
    assert run(obj) == ["b"]
    obj.says["name"] = "db"
    assert reasons(obj) == ["the hash differs", "follows hosts"]
    run(obj)
    assert path.read_text() == "127.0.0.1 db.example.org\n"


def test_a_def_named_hash_says_what_counts(tmp_path: Path, templates: Path) -> None:
    obj = model(tmp_path, counted=mako_task("counted.mako"))
    run(obj)
    obj.says["noise"] = "2"
    assert predicted(obj) == []
    obj.says["version"] = "2"
    assert predicted(obj) == ["counted"]
    run(obj)
    assert (obj.stamp_path / "counted").read_text() == "2"


def test_a_file_that_is_gone_is_rendered_again(tmp_path: Path, templates: Path) -> None:
    obj = model(tmp_path, hosts=hosts())
    run(obj)
    (obj.stamp_path / "etc/hosts").unlink()
    assert predicted(obj) == ["hosts"]


def test_a_task_may_be_ordered(tmp_path: Path, templates: Path) -> None:
    b = recording("b")
    task = mako_task("hosts.mako", _before=b, domain="x")
    assert task.order == b.order - 1
    assert mako_task("hosts.mako", _order=7).order == 7


@pytest.mark.parametrize("path", ["../hosts", "/etc/hosts", "a/../../b", ""])
def test_an_output_or_template_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(InputError, match="no relative path"):
        mako_task(path)
    with pytest.raises(InputError, match="no relative path"):
        mako_task("hosts.mako", path or "/")


def test_a_template_that_is_not_there_is_named(tmp_path: Path, templates: Path) -> None:
    obj = model(tmp_path, gone=mako_task("gone.mako"))
    with pytest.raises(InputError, match=r"gone: no template gone.mako below .*module"):
        run(obj)


def test_without_mako_its_package_is_named(
    tmp_path: Path, templates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mako", None)
    with pytest.raises(HostError, match=r"pip install 'osbuild-pika\[tasks\]'"):
        run(model(tmp_path, hosts=hosts()))


def installing(tmp_path: Path, source: Recorder, **how: Any) -> Machine:
    return heir(Machine, install=install_mako_task("model", **how))(tmp_path / "tasks", source)


def test_what_was_rendered_is_installed_and_again_if_that_ran_later(
    tmp_path: Path, templates: Path
) -> None:
    source = model(tmp_path, hosts=hosts())
    obj = installing(tmp_path, source)
    installed = tmp_path / "tasks/machine/etc/hosts"
    assert predicted(obj) == list(do(obj.run_setup_tasks())) == ["install"]
    assert installed.read_text() == "127.0.0.1 web.example.org\n"
    assert predicted(obj) == list(do(obj.run_setup_tasks())) == []
    source.says["name"] = "db"
    assert reasons(obj) == ["follows hosts of model"]
    assert do(obj.run_setup_tasks()) == ("install",)
    assert installed.read_text() == "127.0.0.1 db.example.org\n"


def test_what_is_not_to_be_followed_is_not(tmp_path: Path, templates: Path) -> None:
    source = model(tmp_path, hosts=hosts())
    obj = installing(tmp_path, source, cross_dependency=False)
    do(obj.run_setup_tasks())
    source.says["name"] = "db"
    assert predicted(obj) == list(do(obj.run_setup_tasks())) == []


def test_an_object_may_install_what_it_rendered_itself(tmp_path: Path, templates: Path) -> None:
    tasks = {"hosts": hosts(), "install": install_mako_task("self", relationship_ready=False)}
    obj = heir(Machine, __module__="with_templates", **tasks)(tmp_path / "tasks")
    obj.says["name"] = "web"
    assert do(obj.run_setup_tasks()) == ("hosts", "install")
    assert (tmp_path / "tasks/machine/etc/hosts").exists()
    with pytest.raises(TypeError, match="relationship_ready=False"):
        install_mako_task("self")


def test_a_link_in_the_file_system_leads_nowhere_else(tmp_path: Path, templates: Path) -> None:
    obj = installing(tmp_path, model(tmp_path, hosts=hosts()))
    (tmp_path / "tasks/machine").mkdir(parents=True)
    (tmp_path / "tasks/machine/etc").symlink_to(tmp_path)
    with pytest.raises(HostError, match="machine: etc/hosts"):
        do(obj.run_setup_tasks())
    assert not (tmp_path / "hosts").exists()
