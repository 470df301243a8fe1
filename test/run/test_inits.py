"""Services and guests of systemd, s6 and OpenRC, put by the engine into a real Debian tree."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import builds
import debs
import pytest
from builds import Place, sh
from debs import Deb

EPOCH = 1_760_000_000
WANTED = ("systemd", "dbus", "python3", "s6", "execline", "busybox", "openrc")
SERVICE = {
    "name": "web",
    "command": ["python3", "-m", "http.server", "it's 50% $HOME"],
    "env": {"B": "a b", "A": ""},
    "user": "ops",
}
# What the init's own programs say of the service, in the tree.
CHECKS = {
    "systemd": "systemd-analyze verify web.service && systemctl is-enabled web.service",
    "s6": "cd /etc/s6/services/web && test -x run && test -x log/run && sh -n run && sh -n log/run",
    "openrc": "rc-update show default | grep -w web && rc-service --list | grep -x ' *web'",
}
INITS = sorted(CHECKS)
# --verify is silent and says 0 if no file of a package was changed.
VERIFY = 'said=$(dpkg --audit; dpkg --verify); echo "$said"; test -z "$said"'
PACK = """
tar --create --sort=name --numeric-owner --xattrs --format=posix --file=all.tar \\
    --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \\
    --directory=/run/osbuild/inputs/tree .
"""


def strictly(command: Callable[[int], list[str]], fd: int) -> list[str]:
    """The same command, by who lets nobody read."""
    return ["sh", "-c", 'umask 077; exec "$@"', "sh", *command(fd)]


class Debian:
    """A place in whose store is a Debian tree with the three of them."""

    def __init__(self, path: Path, packages: list[Deb], minimum: list[Deb]) -> None:
        self.place = Place(path)
        self.packages = packages
        first, rest = debs.minbase_of(packages, minimum)
        self.stages = [debs.stage("bootstrap", first), debs.stage("install", rest)]

    def build(self, stages: list[dict[str, Any]]) -> tuple[int, str]:
        """Build a tree and its archive. Returns (status, what it said)."""
        tree = {"type": "org.osbuild.tree", "origin": "org.osbuild.pipeline"}
        packed = sh(PACK, inputs={"tree": {**tree, "references": ["name:rootfs"]}})
        what = builds.manifest(packed, rootfs=[*self.stages, *stages])
        for pipeline in what["pipelines"]:
            pipeline["source-epoch"] = EPOCH
        shutil.rmtree(self.place.path / "runs", ignore_errors=True)
        with debs.served(self.packages) as sources:
            given = {**what, "sources": sources}
            code, records = self.place.build(given, exports=("tree",))
        said = "".join(record.get("text", "") for record in records)
        return code, f"{said[-2000:]}\n{records[-1]['message']}"


@pytest.fixture(name="debian", scope="module")
def fixture_debian(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Debian:
    builds.needs_root()
    debs.needs_programs()
    assert pytestconfig.cache is not None
    cache = pytestconfig.cache.mkdir("debs")
    minimum = debs.fetch(cache)
    packages = debs.fetch(cache, *WANTED)
    return Debian(tmp_path_factory.mktemp("debian"), packages, minimum)


def ours(kind: str, /, **options: Any) -> dict[str, Any]:
    return {"type": f"org.osbuild-pika.{kind}", "options": options}


def guest(init: str, **service: Any) -> list[dict[str, Any]]:
    ready = {"service": "web", "http": "http://127.0.0.1:8000/", "within_s": 60}
    return [
        {"type": "org.osbuild.users", "options": {"users": {"ops": {"uid": 990}}}},
        ours("service", **{**SERVICE, "init": init, **service}),
        ours("hook", name="check", script=CHECKS[init]),
        ours("guest", init=init, ready=ready),
        ours("hook", name="last", script=VERIFY),
        ours("clean"),
    ]


@pytest.mark.parametrize("init", INITS)
def test_the_init_knows_the_service_and_the_bytes_are_the_same_twice(
    init: str, debian: Debian, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = debian.place.output / "all.tar"
    code, said = debian.build(guest(init))
    assert code == 0, said
    first = archive.read_bytes()
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    monkeypatch.setattr(debian.place, "command", partial(strictly, debian.place.command))
    again = [sh("true # these stages have not run"), *guest(init)]
    code, said = debian.build(again)
    assert code == 0, said
    assert archive.read_bytes() == first


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"command": ["pyhton3"]}, "service web: the tree has no program 'pyhton3'"),
        ({"user": "nobody2"}, "service web: the tree has no user 'nobody2'"),
    ],
)
def test_what_a_service_lacks_fails_the_build(
    init: str, wrong: dict[str, Any], why: str, debian: Debian
) -> None:
    code, said = debian.build(guest(init, **wrong))
    assert code == 1
    assert why in said
