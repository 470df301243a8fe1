"""The directory with which an upstream osbuild runs our modules: what is in it, and when."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from osbuild_pika import upstream
from osbuild_pika.cli.verbs import osbuild_pika
from osbuild_pika.errors import InputError, PikaError
from osbuild_pika.upstream import MARKER, Entry, make_libdir, plan, shebang_of, with_shebang

ROOT = Path(__file__).parents[2]
PROGRAM = "#!/usr/bin/python3\nprint()\n"
STUCK = """
import shutil, time
from osbuild_pika import cli, upstream
upstream.our_files = dict
shutil.copy = lambda *_: time.sleep(60)
cli.main()
"""


def write(path: Path, text: str = PROGRAM, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A tree like upstream's, with what it has that is not to be copied, too."""
    root = tmp_path / "upstream"
    for name in ("stages/x.mkdir", "stages/test/test_x.py", "devices/x.loop", "runners/x.linux"):
        write(root / name)
    write(root / "stages/x.mkdir.meta.json", "{}", 0o644)
    write(root / "schemas/osbuild2.json", "{}", 0o644)
    write(root / "osbuild/__main__.py", "")
    (root / "runners/x.debian").symlink_to("x.linux")
    return root


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Modules of ours, where the package looks for them."""
    root = tmp_path / "data"
    for name in ("devices/pika.life", "devices/x.loop", "stages/pika.tree", "inputs/pika.in"):
        write(root / name)
    write(root / "devices/pika.life.meta.json", "{}", 0o644)
    write(root / "devices/x.loop.meta.json", "{}", 0o644)

    def folder(name: str) -> Path:
        if not (root / name).is_dir():
            raise FileNotFoundError(name)
        return root / name

    monkeypatch.setattr(upstream, "data_folder", folder)
    return root


@pytest.fixture
def interpreter(tmp_path: Path) -> str:
    """One that has our package, whatever the tests are run by."""
    text = f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n'
    return str(write(tmp_path / "bin/python3", text))


def below(directory: Path) -> dict[str, Path]:
    files = [path for path in directory.rglob("*") if not path.is_dir()]
    return {str(path.relative_to(directory)): path for path in files}


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(osbuild_pika, ["upstream", "libdir", *map(str, arguments)])


def test_the_plan_is_upstreams_modules_then_ours() -> None:
    paths = [Path(name) for name in "abcdef"]
    theirs = {"stages": {"x.mkdir": paths[0]}, "devices": {"x.loop": paths[1]}}
    ours = {"devices": {"y": paths[2], "y.meta.json": paths[3]}, "stages": {"z": paths[4]}}
    assert plan(theirs, ours, {"wire.py": paths[5]}) == [
        Entry("stages/x.mkdir", paths[0]),
        Entry("devices/x.loop", paths[1]),
        Entry("devices/y", paths[2], is_hosted=True),
        Entry("devices/y.meta.json", paths[3], is_hosted=True),
        Entry("stages/z", paths[4]),
        Entry("osbuild_pika/wire.py", paths[5]),
    ]


@pytest.mark.parametrize("name", ["x", "x.meta.json"])
def test_of_one_name_upstreams_module_is_taken_whole(name: str) -> None:
    theirs, ours = {"stages": {"x": Path("a")}}, {"stages": {name: Path("b")}}
    assert plan(theirs, ours, {}) == [Entry("stages/x", Path("a"))]


def test_the_directory_holds_both_trees_and_what_sandboxes_need(
    checkout: Path, ours: Path, interpreter: str, tmp_path: Path
) -> None:
    place = tmp_path / "lib"
    made = make_libdir(place, checkout, interpreter)
    package = {name for name in below(place) if name.startswith("osbuild_pika/")}
    assert package >= {f"osbuild_pika/{name}.py" for name in ("__init__", "lifecycle", "wire")}
    assert not {name for name in package if "cli" in name or "pycache" in name}
    assert below(place).keys() - package == {
        MARKER,
        *("devices/x.loop", "devices/pika.life", "devices/pika.life.meta.json", "inputs/pika.in"),
        *("stages/x.mkdir", "stages/x.mkdir.meta.json", "stages/pika.tree"),
        *("runners/x.linux", "runners/x.debian", "schemas/osbuild2.json"),
    }
    assert (made.theirs, made.ours) == (6, 4 + len(package))
    folders = {path.name for path in place.iterdir() if path.is_dir()}
    assert folders == {*upstream.FOLDERS, "osbuild", "osbuild_pika"}
    assert list((place / "osbuild").iterdir()) == []


def test_nothing_is_a_link_and_run_bits_are_kept(
    checkout: Path, ours: Path, interpreter: str, tmp_path: Path
) -> None:
    write(ours / "devices/pika.life", mode=0o555)
    make_libdir(tmp_path / "lib", checkout, interpreter)
    files = below(tmp_path / "lib")
    assert {stat.S_IFMT(path.lstat().st_mode) for path in files.values()} == {stat.S_IFREG}
    modes = {name: stat.S_IMODE(path.stat().st_mode) for name, path in files.items()}
    assert modes["devices/pika.life"] == 0o555
    assert modes["devices/pika.life.meta.json"] == 0o644
    assert modes["runners/x.debian"] == modes["stages/pika.tree"] == 0o755
    assert files["runners/x.debian"].read_text() == PROGRAM


def test_only_our_modules_of_the_host_get_the_interpreter(
    checkout: Path, ours: Path, interpreter: str, tmp_path: Path
) -> None:
    make_libdir(tmp_path / "lib", checkout, interpreter)
    files = below(tmp_path / "lib")
    changed = {name for name, path in files.items() if interpreter in path.read_text()}
    assert changed == {"devices/pika.life", "inputs/pika.in"}
    assert files["inputs/pika.in"].read_text() == f"#!{interpreter}\nprint()\n"


@pytest.mark.parametrize(
    ("program", "changed"),
    [
        (b"#!/usr/bin/python3\nx\n", b"#!/p\nx\n"),
        (b"#!/usr/bin/env python3", b"#!/p"),
        (b"#!/bin/sh\npython\n", b"#!/bin/sh\npython\n"),
        (b'{"python": 1}\n', b'{"python": 1}\n'),
        (b"", b""),
    ],
)
def test_only_python_programs_get_another_first_line(program: bytes, changed: bytes) -> None:
    assert with_shebang(program, b"#!/p") == changed


@pytest.mark.parametrize("path", ["", "/a b/python3", "/a\tb", "/" + "x" * 253, "/" + "é" * 127])
def test_an_interpreter_that_no_first_line_can_name_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot stand in the first line"):
        shebang_of(path)
    with pytest.raises(InputError, match="cannot stand in the first line"):
        make_libdir(tmp_path / "lib", None, path)


def test_the_longest_first_line_is_one_that_linux_takes(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    link = folder / ("y" * (253 - 1 - len(str(folder))))
    link.symlink_to("/bin/cat")
    program = write(tmp_path / "program", shebang_of(str(link)).decode() + "\nhello\n")
    assert subprocess.run([program], capture_output=True, check=True).stdout.endswith(b"hello\n")


def test_an_interpreter_without_our_package_is_refused(
    checkout: Path, ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # upstream's services would not have it
    bare = write(tmp_path / "bare", f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    with pytest.raises(InputError, match="does not find osbuild_pika by itself"):
        make_libdir(tmp_path / "lib", checkout, str(bare))
    with pytest.raises(PikaError, match="gone: No such file"):
        make_libdir(tmp_path / "lib", checkout, str(tmp_path / "gone"))
    assert not (tmp_path / "lib").exists()


def test_what_was_made_is_made_anew(
    checkout: Path, ours: Path, interpreter: str, tmp_path: Path
) -> None:
    place = tmp_path / "lib"
    make_libdir(place, checkout, interpreter)
    before = set(tmp_path.iterdir())
    write(place / "stages/stale")
    write(ours / "stages/pika.new")
    make_libdir(place, checkout, interpreter)
    assert (place / "stages/pika.new").is_file()
    assert not (place / "stages/stale").exists()
    assert set(tmp_path.iterdir()) == before


def test_it_is_made_anew_also_where_names_cannot_be_swapped(
    checkout: Path, ours: Path, interpreter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Path) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(upstream, "exchange", fail)
    make_libdir(tmp_path / "lib", checkout, interpreter)
    write(tmp_path / "lib/stages/stale")
    before = set(tmp_path.iterdir())
    make_libdir(tmp_path / "lib", checkout, interpreter)
    assert not (tmp_path / "lib/stages/stale").exists()
    assert set(tmp_path.iterdir()) == before


def test_a_failure_leaves_all_as_it_was(
    checkout: Path, ours: Path, interpreter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "stages/x")

    make_libdir(tmp_path / "lib", checkout, interpreter)
    before = set(tmp_path.iterdir()), below(tmp_path / "lib").keys()
    write(ours / "stages/pika.new")
    monkeypatch.setattr("shutil.copymode", fail)
    with pytest.raises(PikaError, match="stages/x: No space left on device"):
        make_libdir(tmp_path / "lib", checkout, interpreter)
    assert (set(tmp_path.iterdir()), below(tmp_path / "lib").keys()) == before


def test_what_came_there_meanwhile_is_left_alone(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def come() -> dict[str, dict[str, Path]]:
        write(tmp_path / "lib/precious")
        return {}

    monkeypatch.setattr(upstream, "our_files", come)
    with pytest.raises(InputError, match="is there already"):
        make_libdir(tmp_path / "lib", checkout, sys.executable)
    assert list(below(tmp_path / "lib")) == ["precious"]


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_call_leaves_nothing(
    asked: signal.Signals, checkout: Path, tmp_path: Path
) -> None:
    before = set(tmp_path.iterdir())
    arguments = ["upstream", "libdir", str(tmp_path / "lib"), f"--osbuild={checkout}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", STUCK, *arguments], env=environment) as process:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".lib.*/new/stages")) and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(asked)
        assert process.wait(timeout=30) == 128 + asked
    assert set(tmp_path.iterdir()) == before


def test_the_command_tells_in_one_line_how_to_use_it(
    checkout: Path, ours: Path, interpreter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", interpreter)
    place = tmp_path / "a b"
    done = call(place, "--osbuild", checkout)
    assert (done.exit_code, done.stderr) == (0, "")
    usage = f"use it with: cd {checkout} && python3 -m osbuild --libdir '{place}'\n"
    assert done.stdout.startswith(f"made {place}: 6 files of {checkout} and ")
    assert done.stdout.endswith(usage)
    (checkout / "osbuild/__main__.py").unlink()
    assert call(place, "--osbuild", checkout).stdout.endswith(f"with: osbuild --libdir '{place}'\n")


def test_the_installed_tree_is_taken_if_it_is_there(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "our_files", dict)
    monkeypatch.setattr(upstream, "INSTALLED", checkout)
    assert call(tmp_path / "lib").exit_code == 0
    assert (tmp_path / "lib/stages/x.mkdir").is_file()


def cases(root: Path) -> dict[str, tuple[list[str], str]]:
    """Wrong calls and what is said of them."""
    tree = f"--osbuild={root / 'upstream'}"
    return {
        "no upstream": ([f"{root}/lib"], "gone: not there; name upstream's checkout with --os"),
        "no DIR": ([tree, ""], "DIR is empty"),
        "no PATH": (["--osbuild=", f"{root}/lib"], "PATH is empty"),
        "PATH gone": ([f"--osbuild={root}/x", f"{root}/lib"], "/x: holds no runners/; it is no"),
        "PATH not upstream": ([f"--osbuild={root}", f"{root}/lib"], ": holds no runners/; it is"),
        "PATH made by us": ([f"--osbuild={root}/made", f"{root}/lib"], "/made: was made by osbuil"),
        "PATH in DIR": ([f"--osbuild={root}/made/up", f"{root}/made"], "/made: holds the upstream"),
        "DIR is PATH": ([tree, f"{root}/upstream"], "/upstream: is there already, and not made by"),
        "DIR is a file": ([tree, f"{root}/file"], "/file: is there already, and not made"),
        "DIR is empty": ([tree, f"{root}/empty"], "/empty: is there already, and not made"),
        "DIR is a link": ([tree, f"{root}/link"], "/link: is there already, and not made"),
        "DIR nowhere": ([tree, f"{root}/x/lib"], "/x/lib: cannot be made: "),
        "DIR in a file": ([tree, f"{root}/file/lib"], "/file/lib: cannot be made: "),
        "bad link": ([f"--osbuild={root}/bad", f"{root}/lib"], "y: is a link that leads nowhere"),
    }


@pytest.mark.parametrize("case", cases(Path("/")))
def test_a_wrong_call_is_told_in_one_line_and_changes_nothing(
    case: str, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "our_files", dict)
    monkeypatch.setattr(upstream, "INSTALLED", tmp_path / "gone")
    make_libdir(tmp_path / "made", checkout, sys.executable)
    for folder in ("made/up", "bad"):
        for name in upstream.NEEDED:
            write(tmp_path / folder / name / "x")
    (tmp_path / "bad/runners/y").symlink_to("gone")
    (tmp_path / "link").symlink_to("made")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    arguments, said = cases(tmp_path)[case]
    done = call(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("osbuild-pika: error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
