"""A kickstart becomes a definition: what is honoured is there, what is not is told."""

from __future__ import annotations

import zoneinfo
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika.errors import InputError
from osbuild_pika.image import kickstart
from osbuild_pika.image.kickstart_report import KickstartError, Report
from osbuild_pika.image.values import Definition, Group, Mirror

pytest.importorskip("pykickstart", reason="needs pykickstart")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVsZXZlbmVsZXZlbmVsZXZlbmVsZXZlbmVsZXZlbg ops"
HASH = "$6$abcdefgh$4uVZ1q5Qv0j3m1xjN8l1b9WQ6s1Jw0u8cYz9m2e1f3g4h5i6j7k8l9"


def made(text: str, **more: Any) -> Definition:
    return kickstart.convert(text, "web.ks", **more).definition


def notes(text: str, **more: Any) -> list[str]:
    """What is told of each command: "verdict: note"."""
    report = kickstart.convert(text, "web.ks", **more).report
    return [f"{each.verdict}: {each.note}" for each in report.entries]


def faults(text: str, **more: Any) -> list[str]:
    with pytest.raises(KickstartError) as caught:
        kickstart.convert(text, "web.ks", **more)
    return [line.removeprefix("web.ks:") for line in caught.value.lines]


def content(text: str, path: str) -> str:
    return next(each.content or "" for each in made(text).files if each.path == path)


def packages(text: str) -> str:
    return f"%packages\n{text}\n%end\n"


def test_an_empty_one_is_a_bare_image() -> None:
    found = made("")
    assert (found.name, found.distribution, found.suite) == ("web", "debian", "bookworm")
    assert (found.packages, found.hooks, found.users) == ((), (), ())


@pytest.mark.parametrize(
    ("name", "image"),
    [("web.ks", "web"), ("Web Server.cfg", "web-server"), ("../../x.ks", "x"), ("\u00e9", "image"),
     ("a" * 100, "a" * 63), ("1.2.ks", "1.2")],
)  # fmt: skip
def test_an_image_is_called_as_its_file(name: str, image: str) -> None:
    assert kickstart.convert("", name).definition.name == image


@pytest.mark.parametrize(
    ("line", "locale"),
    [("lang en_US.UTF-8", "en_US.UTF-8"), ("lang de_DE", "de_DE.UTF-8"), ("lang C", "C"),
     ("lang de_DE@euro", "de_DE.UTF-8@euro"), ("lang en_GB.utf8", "en_GB.UTF-8"),
     ("lang de_DE.ISO-8859-1", "de_DE.ISO-8859-1")],
)  # fmt: skip
def test_a_language_is_a_locale(line: str, locale: str) -> None:
    assert made(line).locale == locale


@pytest.mark.parametrize(
    ("line", "layout", "variant"),
    [("keyboard us", "us", ""), ("keyboard --vckeymap=de-nodeadkeys", "de", ""),
     ("keyboard --xlayouts='us','de (neo)'", "us,de", ",neo")],
)  # fmt: skip
def test_a_keyboard_is_in_debians_file(line: str, layout: str, variant: str) -> None:
    lines = content(line, "/etc/default/keyboard").split("\n")
    assert {f'XKBLAYOUT="{layout}"', f'XKBVARIANT="{variant}"'} <= set(lines)


def test_time_has_a_zone_and_servers() -> None:
    text = "timezone Europe/Berlin --utc\ntimesource --ntp-pool=a.example\n"
    text += "timesource --ntp-server=b.example --nts\n"
    assert made(text).timezone == "Europe/Berlin"
    path = "/etc/systemd/timesyncd.conf.d/kickstart.conf"
    assert content(text, path) == "[Time]\nNTP=a.example b.example\n"
    masked = made("timesource --ntp-disable").files[0]
    assert (masked.path, masked.link) == (
        "/etc/systemd/system/systemd-timesyncd.service",
        "/dev/null",
    )


@pytest.mark.parametrize(
    ("line", "password"),
    [("rootpw --lock", "!"), (f"rootpw --iscrypted {HASH}", HASH), ("rootpw secret", "secret"),
     (f"rootpw --lock --iscrypted {HASH}", f"!{HASH}"), ("rootpw --plaintext a --lock", "!")],
)  # fmt: skip
def test_root_has_a_password_or_is_locked(line: str, password: str) -> None:
    (root,) = made(line).users
    assert (root.name, root.password) == ("root", password)
    assert made(line).allowed == (() if password.startswith("!") else ("root-password",))


@pytest.mark.parametrize(
    "line",
    ["rootpw secretword", "user --name=a --password=secretword", "rootpw --iscrypted secretword",
     "rootpw secretword --nonsense=secretword", "user --name=a --bad=secretword secretword",
     "network --essid=x --wpakey=secretword --bootproto=secretword"],
)  # fmt: skip
def test_no_password_is_ever_told(line: str) -> None:
    try:
        report: Report = kickstart.convert(line, "web.ks").report
    except KickstartError as error:
        report = error.report
    assert "secretword" not in str(report.as_document())


def test_a_user_has_keys_groups_and_ids() -> None:
    found = made(
        f'sshkey --username=ops "{KEY}"\n'
        "group --name=web --gid=990\n"
        "user --name=ops --uid=1500 --gid=1500 --groups=web,adm --homedir=/srv/ops --gecos=O\n"
    )
    (ops,) = found.users
    assert (ops.ssh_keys, ops.uid, ops.gid) == ((KEY,), 1500, 1500)
    assert (ops.groups, ops.home, ops.description) == (("web", "adm"), "/srv/ops", "O")
    assert found.groups == (Group("web", 990), Group("ops", 1500), Group("adm", None))


def test_an_administrators_group_of_others_is_told() -> None:
    assert "sudo" in notes("user --name=a --groups=wheel")[0]


def test_services_have_debians_names() -> None:
    found = made("services --enabled=sshd,nginx.service,a@b --disabled=x.timer")
    assert found.enabled == ("ssh.service", "nginx.service", "a@b.service")
    assert found.disabled == ("x.timer",)


def test_a_static_address_counts_before_dhcp() -> None:
    text = "network --device=ens3 --bootproto=static --ip=192.0.2.4 --netmask=255.255.255.128 "
    text += "--gateway=192.0.2.1 --nameserver=192.0.2.53,2001:db8::53 --hostname=web.example"
    assert made(text).hostname == "web.example"
    assert content(text, "/etc/systemd/network/10-eth0.network") == (
        "[Match]\nName=eth0\n\n[Network]\nDHCP=no\nIPv6AcceptRA=yes\nAddress=192.0.2.4/25\n"
        "Gateway=192.0.2.1\nDNS=192.0.2.53\nDNS=2001:db8::53\n"
    )


def test_dhcp_needs_no_file() -> None:
    assert made("network --bootproto=dhcp --device=link --activate").files == ()


def test_a_bond_is_refused() -> None:
    told = faults("network --device=bond0 --bondslaves=a,b")
    assert told[0].startswith("1: network: a bond: a guest gets its devices from Incus")


@pytest.mark.parametrize(
    ("text", "suite", "mirror"),
    [
        ("url --url=http://m.example/debian", "bookworm", Mirror("http://m.example/debian")),
        (
            "url --url=http://m.example/ubuntu/dists/noble/main",
            "noble",
            Mirror("http://m.example/ubuntu", ("noble",), ("main",)),
        ),
        (
            'repo --name=a --baseurl="deb [arch=amd64] http://m.example/d trixie-security main x"',
            "trixie",
            Mirror("http://m.example/d", ("trixie-security",), ("main", "x")),
        ),
    ],
)
def test_a_mirror_says_the_suite(text: str, suite: str, mirror: Mirror) -> None:
    found = made(text)
    assert (found.suite, found.mirrors) == (suite, (mirror,))


def test_the_suite_is_else_what_was_asked_for() -> None:
    found = kickstart.convert("", "web.ks", origin="ubuntu/noble")
    assert (found.definition.distribution, found.definition.suite) == ("ubuntu", "noble")
    assert found.report.origin == "ubuntu/noble (--from)"
    with pytest.raises(InputError, match="--from 'noble' is no suite such as debian/bookworm"):
        kickstart.convert("", "web.ks", origin="noble")


def test_packages_are_listed_or_excluded_and_the_last_word_counts() -> None:
    found = made(packages("nginx # web\n-exim4-base\n-*-doc\ncurl\n-curl\n-vim\nvim"))
    assert found.packages == ("nginx", "vim")
    assert found.excluded == ("exim4-base", "*-doc", "curl")


def test_groups_are_refused_with_the_way_out_and_can_be_left_out() -> None:
    text = packages("@core\n@^minimal\nbash\n-@dial up")
    told = faults(text)
    assert [line.split(":")[0] for line in told] == ["2", "3"]
    assert all("tasksel" in line and "metapackage" in line for line in told)
    found = kickstart.convert(text, "web.ks", frozenset({"@groups"}))
    assert found.definition.packages == ("bash",)
    assert found.report.counts == {"honoured": 1, "ignored": 1, "warning": 2, "error": 0}


def test_posts_run_in_order_each_as_it_says() -> None:
    found = made(
        "%post\na\n%end\n%post --interpreter=/bin/bash --erroronfail\nb\n%end\n"
        "%post --interpreter=/usr/bin/python3 --log=/root/log\nc\n%end\n"
    )
    assert [(each.script, each.interpreter, each.log, each.may_fail) for each in found.hooks] == [
        ("a\n", "/bin/bash --posix", None, True),
        ("b\n", "/bin/bash +e", None, False),
        ("c\n", "/usr/bin/python3", "/root/log", True),
    ]


def test_a_script_is_taken_as_it_is() -> None:
    script = "cat <<'E'\n%packagesx of it\n  # \"quote\n%\n@x\n'\n\nE\n"
    assert made(f"%post\n{script}%end\n").hooks[0].script == script


@pytest.mark.parametrize("name", ["logvol", "raid", "volgroup", "liveimg", "ostreesetup", "bogus"])
def test_what_cannot_be_done_is_refused_unless_allowed(name: str) -> None:
    text = f"{name} x\nlang C\n"
    assert faults(text)[0].endswith(f"(--allow-unsupported '{name}' leaves it out)")
    found = kickstart.convert(text, "web.ks", frozenset({name}))
    assert found.definition.locale == "C"
    assert [each.verdict for each in found.report.entries] == ["warning", "honoured"]


def test_old_names_of_zones_are_known_where_they_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "Europe").mkdir()
    (tmp_path / "Europe/Berlin").touch()
    (tmp_path / "tzdata.zi").write_text("Z Europe/Berlin 1\nL America/New_York US/Eastern\n")
    zoneinfo.reset_tzpath(to=[tmp_path])
    try:
        assert made("timezone US/Eastern").timezone == "US/Eastern"
        assert made("timezone Europe/Berlin").timezone == "Europe/Berlin"
        assert faults("timezone Eastern")
    finally:
        zoneinfo.reset_tzpath()


@pytest.mark.parametrize("name", ["%pre", "%pre-install", "%onerror", "%traceback", "%bogus"])
def test_sections_that_cannot_be_done_are_refused_unless_allowed(name: str) -> None:
    text = f"{name}\ntimezone Nowhere\n%end\nlang C\n"
    assert [line.split(":")[:2] for line in faults(text)] == [["1", f" {name}"]]
    assert made(text, allowed=frozenset({name})).locale == "C"


def test_a_post_outside_is_refused_unless_allowed() -> None:
    text = "%post --nochroot\na\n%end\n%post\nb\n%end\n"
    assert faults(text)[0].startswith("1: %post --nochroot: ")
    found = made(text, allowed=frozenset({"%post --nochroot"}))
    assert [each.script for each in found.hooks] == ["b\n"]


def test_all_faults_are_told_with_their_lines() -> None:
    text = "timezone Nowhere/City\n\nlogvol /\nrootpw 'a\nuser --name=Bad\n%pre\n%end\n%end\n"
    assert [line.split(":")[0] for line in faults(text)] == ["1", "3", "4", "5", "6", "8"]


def test_wrong_values_cannot_be_allowed() -> None:
    assert faults("timezone Nowhere/City", allowed=frozenset({"timezone"}))


@pytest.mark.parametrize(
    ("text", "version", "why"),
    [
        ("#version=RHEL8\nlang C", "RHEL8", "#version= in line 1"),
        ("install\nlang C", "F33", "it reads 1 lines more than the newest"),
        ("lang C\n%packages\nbash\n%post\ntrue\n", "RHEL5", "it reads 2 lines more"),
    ],
)
def test_the_report_says_which_version_and_why(text: str, version: str, why: str) -> None:
    report = kickstart.convert(text, "web.ks").report
    assert report.version == version
    assert report.why.startswith(why)
    assert f"read as {version}: {why}" in report.summary


def test_a_version_that_is_not_known_is_told() -> None:
    report = kickstart.convert("# version=WIN95\n%post\n#version=RHEL4\n%end", "web.ks").report
    assert report.why == "the newest, for 'WIN95' in line 1 is not known"


def test_a_section_without_its_end_is_told_in_the_newer_language() -> None:
    assert faults("#version=F40\n%packages\nbash\n") == [
        "2: %packages: %packages has no %end: add one"
    ]


def test_meegos_dialect_is_read() -> None:
    line = "repo --name=a --baseurl=http://m.example/debian --save --ssl_verify no --gpgkey=k"
    found = kickstart.convert(f"{line}\ndesktop --autologinuser=a\n%pack\nx\n%end\n", "web.ks")
    assert found.definition.mirrors == (Mirror("http://m.example/debian"),)
    assert [each.verdict for each in found.report.entries] == ["honoured", "ignored", "ignored"]
    assert "signatures" in found.report.entries[0].note


def test_includes_are_followed_below_their_directory_only(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "base.ks").write_text("lang C\n%include a/more.ks\ntimezone Nowhere/City\n")
    (root / "a/more.ks").write_text("%packages\nbash\n%include a/list\n%end\n")
    (root / "a/list").write_text("curl\n")
    text = "%include base.ks\nlogvol x\n%ksappend a/none.ks\n"
    with pytest.raises(KickstartError) as caught:
        kickstart.convert(text, "web.ks", include_root=str(root))
    places = [line.rpartition(": ")[0].split(": ")[0] for line in caught.value.lines]
    assert places == ["base.ks:3", "web.ks:2", "web.ks:3"]
    (root / "base.ks").write_text("%include a/more.ks\n")
    found = made("%include base.ks\n", include_root=str(root))
    assert found.packages == ("bash", "curl")
