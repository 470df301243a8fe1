"""Sources, languages, accounts and passwords, as texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from osbuild_pika.inside import clean, settings
from osbuild_pika.inside.accounts import Accounts
from osbuild_pika.inside.stage import StageError

USERS = "root:x:0:0:root:/root:/bin/bash\nops:x:1000:1001:a,b:/home/ops:/bin/sh\n"
GROUPS = "root:x:0:\nadm:x:4:ops\n7:x:700:\n"


def test_a_stanza_is_written_in_apts_order() -> None:
    stanza = {
        "signed-by": "/usr/share/keyrings/a.gpg",
        "suites": ["bookworm", "bookworm-updates"],
        "uris": "http://example.org/debian",
        "types": ["deb"],
        "components": "main contrib",
    }
    assert settings.stanza_text(stanza) == (
        "Types: deb\n"
        "URIs: http://example.org/debian\n"
        "Suites: bookworm bookworm-updates\n"
        "Components: main contrib\n"
        "Signed-By: /usr/share/keyrings/a.gpg\n"
    )


def test_a_stanza_cannot_smuggle_in_another_field() -> None:
    with pytest.raises(StageError, match="more than one line"):
        settings.stanza_text({"types": "deb", "uris": "http://a\nTrusted: yes"})


def test_the_file_is_called_after_the_release_and_replaces_older_sources(tmp_path: Path) -> None:
    (tmp_path / "etc/apt").mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text('NAME="Ubuntu"\nID=ubuntu\n')
    (tmp_path / "etc/apt/sources.list").write_text("deb copy:/x ./\n")
    path = settings.set_sources(tmp_path, [{"types": "deb", "uris": "http://a", "suites": "n"}])
    assert path == "/etc/apt/sources.list.d/ubuntu.sources"
    assert not (tmp_path / "etc/apt/sources.list").exists()
    with pytest.raises(StageError, match="no such keyring"):
        settings.set_sources(tmp_path, [{"types": "deb", "signed-by": "/usr/share/keyrings/a.gpg"}])


def test_a_language_is_enabled_where_it_stands() -> None:
    text = "# a comment\n# de_DE.UTF-8 UTF-8\n# de_DE ISO-8859-1\n"
    changed, known = settings.enable_language(text, "de_DE.UTF-8")
    assert known
    assert changed == "# a comment\nde_DE.UTF-8 UTF-8\n# de_DE ISO-8859-1\n"
    assert settings.enable_language(text, "xx_XX") == (text, False)


@pytest.mark.parametrize("language", ["", "a b", "x\ny", "../x", "$(x)"])
def test_what_is_no_locale_is_refused(language: str, tmp_path: Path) -> None:
    with pytest.raises(StageError):
        settings.set_language(tmp_path, language)


@pytest.mark.parametrize("zone", ["", "../etc/passwd", "/etc/passwd", "Europe//x", "a b"])
def test_what_is_no_time_zone_is_refused(zone: str, tmp_path: Path) -> None:
    with pytest.raises(StageError):
        settings.set_zone(tmp_path, zone)


def test_a_zone_has_to_be_in_the_tree(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="tzdata"):
        settings.set_zone(tmp_path, "Europe/Berlin")
    with pytest.raises(StageError, match="tzdata-legacy for old names"):
        settings.set_zone(tmp_path, "US/Eastern")
    (tmp_path / "usr/share/zoneinfo/Europe").mkdir(parents=True)
    (tmp_path / "usr/share/zoneinfo/Europe/Berlin").touch()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/localtime").symlink_to("/usr/share/zoneinfo/UTC")
    (tmp_path / "etc/timezone").write_text("Etc/UTC\n")
    settings.set_zone(tmp_path, "Europe/Berlin")
    assert (tmp_path / "etc/localtime").readlink() == Path("../usr/share/zoneinfo/Europe/Berlin")
    assert (tmp_path / "etc/timezone").read_text() == "Europe/Berlin\n"


def test_owners_are_found_by_name_or_number() -> None:
    known = Accounts(USERS, GROUPS)
    assert [known.user_id(name) for name in ("root", "ops", "42", 43)] == [0, 1000, 42, 43]
    assert [known.group_id(name) for name in ("adm", "7", "8")] == [4, 700, 8]
    assert Accounts("", "").user_id("root") == 0


@pytest.mark.parametrize("name", ["nobody-here", "65536", "-1", ""])
def test_an_owner_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(StageError):
        Accounts(USERS, GROUPS).user_id(name)


def test_passwords_are_not_younger_than_the_image() -> None:
    text = "root:*:20000:0:99999:7:::\nops:!:19000:0:99999:7:::\nnever:!::0:99999:7:::\nodd\n"
    assert clean.date_passwords(text, 19500) == text.replace("20000", "19500")
