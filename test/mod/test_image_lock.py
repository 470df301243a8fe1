"""image.lock.json: what is written is read again, and it says what it does not answer any more."""

import dataclasses
import json
from pathlib import Path

import images
import pytest

from osbuild_pika.errors import InputError
from osbuild_pika.image import lock


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = str(tmp_path / "image.lock.json")
    made = images.made_lock(images.define("mirror: [{url: 'http://127.0.0.1/', suites: [a]}]"))
    lock.write(made, path)
    assert lock.read(path) == made
    assert [each.name for each in tmp_path.iterdir()] == ["image.lock.json"]


def test_a_package_is_a_line() -> None:
    asked = images.define()
    one, two = (images.package("zsh", False, version) for version in ("1", "2"))
    before, after = (lock.encode(images.made_lock(asked, each)) for each in (one, two))
    changed = [line for line in after.split("\n") if line not in before.split("\n")]
    assert len(changed) == 1
    assert '"name": "zsh", "version": "2"' in changed[0]


def test_there_is_none() -> None:
    assert lock.read("/nonexistent/image.lock.json") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no JSON"),
        ("[]", r"\[\] is not of type 'object'"),
        ("{}", "'version' is a required property"),
        ("[" * 100_000, "is no JSON"),
    ],
    ids=["empty", "list", "object", "deep"],
)
def test_what_is_no_lock_is_told(text: str, why: str) -> None:
    with pytest.raises(InputError, match=f"image.lock.json:? ?.*{why}.*; make it again"):
        lock.decode(text.encode(), "image.lock.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("url", "file:///etc/shadow"),
        ("url", "http://127.0.0.1/a b"),
        ("sha256", "0" * 63),
        ("name", "../a"),
        ("version", "1_2"),
        ("size", -1),
        ("auto", "yes"),
        ("more", 1),
    ],
)
def test_a_package_that_was_changed_by_hand_is_refused(key: str, value: object) -> None:
    document = json.loads(lock.encode(images.made_lock(images.define())))
    document["packages"][0][key] = value
    with pytest.raises(InputError, match=r"packages.*; make it again: osbuild-pika lock"):
        lock.decode(json.dumps(document).encode(), "image.lock.json")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("packages: [zsh]", "it is without zsh"),
        ("lifecycle: false", "it is with python3"),
        ("packages: [zsh]\nlifecycle: false", "it is without zsh and with python3"),
        ("timezone: Europe/Berlin", "it is without tzdata"),
        ("locale: de_DE.UTF-8", "it is without locales"),
        ("init: none", "init is another"),
        ("mirror: http://127.0.0.1/", "mirror is another"),
        ("keyring: own.gpg", "keyring is another"),
    ],
)
def test_a_lock_of_another_definition_says_what_is_different(text: str, what: str) -> None:
    made = images.made_lock(images.define())
    lock.check(made, images.define(), "image.lock.json")
    with pytest.raises(InputError) as caught:
        lock.check(made, images.define(text), "dir/image.lock.json")
    assert str(caught.value) == (
        f"image.lock.json is not of this definition any more ({what}): osbuild-pika lock"
    )


@pytest.mark.parametrize("text", ["hostname: a", "files: [{path: /a, content: b}]", "locale: C"])
def test_what_needs_no_packages_needs_no_new_lock(text: str) -> None:
    lock.check(images.made_lock(images.define()), images.define(text), "image.lock.json")


def test_indexes_that_were_signed_again_change_nothing() -> None:
    made = images.made_lock(images.define())
    again = dataclasses.replace(made, source_date_epoch=made.source_date_epoch + 9, releases=())
    assert lock.is_same(made, again)
    other = dataclasses.replace(again, packages=(images.package("zsh", True),))
    assert not lock.is_same(made, other)


def test_changes_are_told_by_package() -> None:
    asked = images.define()
    old = images.made_lock(asked, *(images.package(each, False, "1") for each in ("a", "b", "c")))
    new = images.made_lock(asked, images.package("b", False, "2"), images.package("c", False, "1"),
                           images.package("d", False, "1"))  # fmt: skip
    assert lock.changes(old, new) == ["- a 1", "  b 1 -> 2", "+ d 1"]


def test_its_place_is_beside_the_definition() -> None:
    assert lock.place_of("a/web.yaml") == "a/web.lock.json"


@pytest.mark.parametrize("init", ["systemd", "s6", "openrc", "none"])
def test_a_lock_of_each_init_is_read_back(init: str) -> None:
    made = images.made_lock(images.define(f"init: {init}"))
    assert lock.decode(lock.encode(made).encode(), "image.lock.json") == made
