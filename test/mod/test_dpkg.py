"""What dpkg keeps and says is understood, and each way in which it differs from a lock is named."""

from __future__ import annotations

from osbuild_pika.inside import dpkg
from osbuild_pika.inside.dpkg import Package, Step

LIBC = Package("libc6", "2.36-9+deb12u1", "amd64", "sha256:" + "1" * 64, True)
PASSWD = Package("passwd", "1:4.13+dfsg1-1", "amd64", "sha256:" + "2" * 64, False)
DATA = Package("tzdata", "2024a-0", "all", "sha256:" + "3" * 64, True)
STATUS = """\
Package: libc6
Status: install ok installed
Version: 2.36-9+deb12u1
Description: a library
 Package: not a field

Package: passwd
Status: install ok half-configured
Version: 1:4.13+dfsg1-1
"""


def index(package: Package, **changes: str) -> str:
    fields = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": package.arch,
        "Filename": f"./{dpkg.file_name(package)}",
        "SHA256": package.checksum[7:],
        **changes,
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def test_a_file_is_called_what_apt_calls_it() -> None:
    assert dpkg.file_name(PASSWD) == "passwd_1%3a4.13+dfsg1-1_amd64.deb"


def test_fields_are_read_by_stanza_and_continued_lines_are_not_fields() -> None:
    first, second = dpkg.stanzas(STATUS)
    assert first["Package"] == "libc6"
    assert second["Status"] == "install ok half-configured"


def test_a_repository_as_it_is_locked_has_no_fault() -> None:
    text = f"{index(LIBC)}\n{index(PASSWD)}"
    assert list(dpkg.repository_faults([LIBC, PASSWD], text)) == []


def test_another_content_version_or_name_than_locked_is_named() -> None:
    wrong = [
        index(LIBC, SHA256="9" * 64),
        index(LIBC, Version="2.36-8"),
        index(LIBC, Package="libc7"),
        index(LIBC, Architecture="i386"),
        "",
    ]
    faults = [next(dpkg.repository_faults([LIBC], text)) for text in wrong]
    assert [fault.split(": ", 1)[0] for fault in faults] == ["libc6"] * 5
    assert "another checksum" in faults[0]
    assert "Version is 2.36-9+deb12u1 in the lock, 2.36-8 in the package" in faults[1]
    assert "Package is libc6" in faults[2]
    assert "Architecture is amd64" in faults[3]
    assert "no Debian package" in faults[4]


def test_what_is_not_installed_as_locked_is_named() -> None:
    assert list(dpkg.installed_faults([LIBC], ["passwd"], STATUS)) == []
    assert list(dpkg.installed_faults([LIBC, PASSWD], [], STATUS)) == [
        "passwd is not installed: install ok half-configured"
    ]
    assert list(dpkg.installed_faults([LIBC], [], STATUS)) == [
        "passwd is installed, but not locked"
    ]
    other = LIBC._replace(version="2.37")
    assert list(dpkg.installed_faults([other, DATA], ["passwd"], STATUS)) == [
        "libc6 is installed as 2.36-9+deb12u1, locked is 2.37",
        "tzdata is not installed: not installed",
    ]


def test_marks_are_apts_and_earlier_ones_stay() -> None:
    before = "Package: zlib1g\nArchitecture: amd64\nAuto-Installed: 1\n\n"
    assert dpkg.extended_states(before, [PASSWD, DATA, LIBC], "amd64") == (
        "Package: libc6\nArchitecture: amd64\nAuto-Installed: 1\n\n"
        "Package: tzdata\nArchitecture: amd64\nAuto-Installed: 1\n\n"
        "Package: zlib1g\nArchitecture: amd64\nAuto-Installed: 1\n\n"
    )
    asked = LIBC._replace(auto=False)
    assert dpkg.extended_states(dpkg.extended_states("", [LIBC], "amd64"), [asked], "amd64") == ""


def test_steps_count_each_package_once() -> None:
    said = dpkg.Said()
    lines = [
        "Unpacking libc6:amd64 (2.36-9) ...",
        "Unpacking libc6:amd64 (2.36-9) over (2.36-9) ...",
        "Preparing to unpack .../passwd.deb ...",
        "Unpacking passwd (1:4.13) ...",
        "Setting up libc6:amd64 (2.36-9) ...",
    ]
    assert [said.hear(line) for line in lines] == [
        Step("unpacking", "libc6", 1),
        Step("unpacking", "libc6", 1),
        None,
        Step("unpacking", "passwd", 2),
        Step("setting up", "libc6", 1),
    ]
    assert said.explain() == ""


def test_the_package_whose_script_failed_is_named_and_not_those_that_need_it() -> None:
    said = dpkg.Said()
    for line in [
        "Setting up other (1) ...",
        "noise of other",
        "Setting up bad (1.0-1) ...",
        "cannot frobnicate",
        "dpkg: error processing package bad (--configure):",
        " installed bad package post-installation script subprocess returned error exit status 3",
        "dpkg: dependency problems prevent configuration of needs-bad:",
        "dpkg: error processing package needs-bad (--configure):",
        " dependency problems - leaving unconfigured",
        "Errors were encountered while processing:",
        "E: Sub-process /usr/bin/dpkg returned an error code (1)",
    ]:
        said.hear(line)
    assert said.explain().startswith("package bad: installed bad package post-installation script")
    assert said.last_words == ["cannot frobnicate"]


def test_an_archive_that_cannot_be_unpacked_is_named() -> None:
    said = dpkg.Said()
    said.hear("dpkg: error processing archive /run/pool/./bad_1.0-1_all.deb (--unpack):")
    said.hear(" trying to overwrite '/usr/bin/x', which is also in package other 1")
    assert said.explain().startswith("package bad: trying to overwrite")


def test_what_apt_says_is_the_reason_if_dpkg_was_not_asked() -> None:
    said = dpkg.Said()
    said.hear("E: Version '2' for 'x' was not found")
    said.hear("E: and more")
    assert said.explain() == "Version '2' for 'x' was not found"
