"""Kickstarts that mean harm are refused in one line each, and nothing of the machine is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osbuild_pika.errors import InputError
from osbuild_pika.image import kickstart
from osbuild_pika.image.kickstart_report import KickstartError
from osbuild_pika.image.kickstart_rules import HONOURED, IGNORED, REFUSED
from osbuild_pika.text import one_line

pytest.importorskip("pykickstart", reason="needs pykickstart")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVsZXZlbmVsZXZlbmVsZXZlbmVsZXZlbmVsZXZlbg"
HOSTILE = {
    "NUL": "lang C\0",
    "escape": "# \x1b[2J\nlang C",
    "C1": "lang C\x9b2J",
    "direction": "# \u202egnal",
    "separator": "lang C\u2028rootpw x",
    "carriage return": "lang C\rrootpw x",
    "half a character": "lang \ud800",
    "large": "#" * (1024 * 1024 + 1),
    "many lines": "\n" * 20_001,
    "many commands": "bogus\n" * 19_999,
    "many sections": "%x\n" * 19_999,
    "long line": "lang " + "x" * 10_001,
    "huge field": f"network --hostname={'a' * 9000}",
    "include": "%include /etc/shadow",
    "include in a script": "%post\n%include /etc/shadow\n%end",
    "include in packages": "%packages\n%include ../../etc/shadow\n%end",
    "include of a URL": "%include http://192.0.2.1/ks",
    "include of nfs": "%include nfs:192.0.2.1:/ks",
    "include of nothing": "%include",
    "append": "%ksappend file:///etc/shadow",
    "shell in a user": "user --name='a;reboot'",
    "dash user": "user --name=-rf",
    "path in a user": "user --name=../../etc",
    "line in gecos": "user --name=a --gecos='a:0:0:/:/bin/sh'",
    "shell in a group": "group --name='$(reboot)'",
    "home out of the image": "user --name=a --homedir=/../../etc",
    "shell of a user": "user --name=a --shell='sh -c x'",
    "shell in a package": "%packages\n$(reboot)\n%end",
    "option as a package": "%packages\n--allow-unauthenticated\n%end",
    "path as a package": "%packages\n./evil.deb\n%end",
    "option as a service": "services --enabled='--root=/'",
    "path as a service": "services --enabled=../../x",
    "shell in a host name": "network --hostname='a;reboot'",
    "section in an address": "network --bootproto=static --ip='192.0.2.1]' --netmask=255.0.0.0",
    "name server": "network --nameserver='192.0.2.1 Domains=x'",
    "time server": "timesource --ntp-server='a b'",
    "zone path": "timezone ../../etc/shadow",
    "absolute zone": "timezone /etc/shadow",
    "locale": "lang '../../x'",
    "keyboard": "keyboard 'us\"; reboot'",
    "two keys in one": f"sshkey --username=a '{KEY} x\\\\n{'y' * 300}'",
    "options of a key": f"sshkey --username=a 'command=\"x\" {KEY}'",
    "log out of the image": "%post --log=/../../etc/shadow\ntrue\n%end",
    "relative log": "%post --log=log\ntrue\n%end",
    "interpreter": "%post --interpreter=python3\ntrue\n%end",
    "interpreter with a line": "%post --interpreter='/bin/\u00e9'\ntrue\n%end",
    "mirror of files": "url --url=file:///",
    "mirror with a password": "url --url=http://a:b@m.example/",
    "apt line": "repo --name=a --baseurl='deb file:/// x main'",
    "suite": "url --url=http://m.example/debian/dists/..%2f/main",
    "id": "user --name=a --uid=99999999999999999999",
    "no password": "rootpw ''",
    "negative id": "user --name=a --uid=-1",
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_it_is_refused_in_one_line(kind: str) -> None:
    with pytest.raises(InputError) as caught:
        kickstart.convert(HOSTILE[kind], "evil.ks")
    (line,) = getattr(caught.value, "lines", [str(caught.value)])
    assert line == one_line(line)
    assert len(line) < 600
    assert line.startswith("evil.ks:")


def test_an_include_never_leaves_its_directory(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.ks").write_text("lang C\n")
    (root / "link.ks").symlink_to("../secret.ks")
    (root / "out").symlink_to("..")
    os.mkfifo(root / "pipe.ks")
    (root / "binary.ks").write_bytes(b"\xff\xfe")
    (root / "control.ks").write_bytes(b"\x1b")
    names = ["../secret.ks", "link.ks", "out/secret.ks", str(tmp_path / "secret.ks"), "pipe.ks"]
    names += [".", "none.ks", "binary.ks", "/etc/shadow", "/proc/self/environ"]
    text = "".join(f"%include {name}\n" for name in names)
    with pytest.raises(KickstartError) as caught:
        kickstart.convert(text, "evil.ks", include_root=str(root))
    assert len(caught.value.lines) == len(names)
    with pytest.raises(KickstartError, match=r"control.ks:1: a control character \(U\+001B\)"):
        kickstart.convert("%include control.ks", "evil.ks", include_root=str(root))


def test_includes_without_an_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.ks").write_text("%include loop.ks\n" * 3)
    with pytest.raises(KickstartError) as caught:
        kickstart.convert("%include loop.ks", "evil.ks", include_root=str(tmp_path))
    assert "is nested deeper than 8 files" in caught.value.lines[0]
    (tmp_path / "large.ks").write_text("#" * 600_000)
    with pytest.raises(KickstartError, match="is larger than 1048576 bytes"):
        kickstart.convert("%include large.ks\n" * 2, "evil.ks", include_root=str(tmp_path))


def test_a_root_that_is_none_is_told() -> None:
    with pytest.raises(InputError, match="--include-root '/nonexistent': there is no such"):
        kickstart.convert("", "web.ks", include_root="/nonexistent")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        kickstart.load(str(tmp_path / "none.ks"))
    (tmp_path / "a.ks").write_bytes(b"lang C\n\xff")
    with pytest.raises(KickstartError, match=r"a.ks:2: is not UTF-8 text: convert it"):
        kickstart.load(str(tmp_path / "a.ks"))


# --- any text ------------------------------------------------------------------------------------

NAMES = st.sampled_from([*HONOURED, *IGNORED, *REFUSED, "%end", "%include", "bogus", "@core"])
WORDS = st.sampled_from(
    ["--name=a", "--name", "--url=http://[", "--baseurl=deb x y", "--password=", "--iscrypted",
     "--lock", "--ip=1", "--netmask=x", "--bootproto=static", "--hostname=", "--device=", "'", '"',
     "\\", "#", "--groups=a,(,b(1)", "--uid=x", "--uid=1e9", "--enabled=", "--enabled=,a,,",
     "--xlayouts=us,", "--switch=,", "--ntp-server=", "--ntpservers=,", "--interpreter=", "--log=",
     "Europe/Berlin", "en_US", "us", "--ipv6=::1", "--nameserver=,", "--size=1", "/", "=", "--",
     "--mirrorlist=x", "--metalink=x", "--cost=x", "--gid=0", "--username=a", "--erroronfail"]
)  # fmt: skip
LINES = st.one_of(
    st.tuples(NAMES, st.lists(st.one_of(WORDS, st.text(max_size=5)), max_size=4)).map(
        lambda each: " ".join((each[0], *each[1]))
    ),
    st.text(max_size=20),
)


def convert(text: str) -> None:
    lines: tuple[str, ...] = ("fine",)
    try:
        kickstart.convert(text, "any.ks", frozenset({"logvol", "@groups"}))
    except KickstartError as error:
        lines = error.lines
    assert [line for line in lines if line == one_line(line)] == list(lines) != []


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    convert(text)


@given(st.lists(LINES, max_size=12).map("\n".join))
def test_any_lines(text: str) -> None:
    convert(text)


@pytest.mark.slow
@settings(max_examples=2000)
@given(st.lists(LINES, max_size=12).map("\n".join))
def test_many_more_lines(text: str) -> None:
    convert(text)
