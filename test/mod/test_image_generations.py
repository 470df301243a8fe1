"""A definition that is made from another one: what it has of it, what it adds, what is refused."""

from pathlib import Path
from typing import Any

import images
import pytest

from osbuild_pika.errors import InputError
from osbuild_pika.image import definition, lock, manifest
from osbuild_pika.image.local import Local
from osbuild_pika.image.lock import Lock
from osbuild_pika.image.reading import DefinitionError
from osbuild_pika.image.values import Definition, generations

BASE = """\
name: base
from: debian/bookworm
packages: [nginx-light]
exclude: [perl]
mirror: http://127.0.0.1:9/debian/
files: [{path: /etc/base, content: base}]
users: [{name: root, password: "*"}]
hooks: {post-packages: "echo base", last: "echo last of base"}
ready: {unit: nginx.service}
properties: {team: web, tier: base}
timezone: Europe/Helsinki
outputs: [squashfs]
lint: {allow: [init]}
"""


def lay(folder: Path, **texts: str) -> Path:
    """Write definitions by name; returns the path of the last."""
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{name}.yaml"


def load(folder: Path, text: str = "", base: str = BASE) -> Definition:
    path = lay(folder, base=base, shop=f"name: shop\nfrom: base.yaml\n{text}")
    return definition.load(str(path))


def refusal(path: Path) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        definition.load(str(path))
    return caught.value.lines


def locked(*asked: Definition) -> list[Lock]:
    """A lock for each generation, of a package that has its name."""
    found: list[Lock] = []
    for each in asked:
        request = lock.request(each, found[-1] if found else None)
        package = images.package(each.name, base=not found)
        plain = images.made_lock(images.define(), package)
        found.append(Lock(**{**vars(plain), "request": request}))
    return found


def made(*asked: Definition) -> dict[str, Any]:
    levels = [
        manifest.Level(each, its, Local(hashes={"root": "*"}))
        for each, its in zip(asked, locked(*asked), strict=True)
    ]
    return manifest.make(levels)


def test_an_image_is_what_its_parent_is_unless_it_says_more(tmp_path: Path) -> None:
    shop = load(tmp_path, "properties: {tier: shop}\nlint: {allow: [hosts]}\nexclude: [vim]")
    assert (shop.distribution, shop.suite, shop.base, shop.init) == (
        *("debian", "bookworm"),
        *("minbase", "systemd"),
    )
    assert shop.ready is not None
    assert shop.ready.unit == "nginx.service"
    assert shop.properties == {"team": "web", "tier": "shop"}
    assert shop.allowed == ("init", "hosts")
    assert shop.excluded == ("perl", "vim")


def test_what_an_image_adds_is_its_own(tmp_path: Path) -> None:
    shop = load(tmp_path, "packages: [php]")
    assert (shop.packages, shop.files, shop.users, shop.hooks) == (("php",), (), (), ())
    assert (shop.outputs, shop.timezone, shop.locale) == (("incus-unified",), None, None)
    assert (shop.mirrors, shop.keyring) == ((), None)


@pytest.mark.parametrize(
    "key", ["base: minbase", "init: none", "lifecycle: false", "mirror: http://a/", "keyring: a"]
)
def test_what_its_parent_decides_is_refused_with_its_place(key: str, tmp_path: Path) -> None:
    path = lay(tmp_path, base=BASE, shop=f"name: shop\nfrom: base.yaml\n{key}\n")
    name = key.partition(":")[0]
    why = "is for 'base.yaml' to say, which this is made from: leave it out"
    assert refusal(path) == [f"shop.yaml:3:1: {why}"], name


def test_faults_of_the_parent_stand_in_its_file(tmp_path: Path) -> None:
    path = lay(tmp_path, base=f"{BASE}packges: []\n", shop="name: shop\nfrom: base.yaml\n")
    assert refusal(path) == [
        f"base.yaml:{BASE.count(chr(10)) + 1}:1: unknown key 'packges', did you mean 'packages'?"
    ]


def test_a_parent_that_is_not_there_is_told_with_its_place(tmp_path: Path) -> None:
    path = lay(tmp_path, shop="name: shop\nfrom: base.yaml\n")
    assert refusal(path) == [f"shop.yaml:2:7: {tmp_path}/base.yaml: No such file or directory"]


def test_a_circle_is_told(tmp_path: Path) -> None:
    path = lay(tmp_path, base="name: b\nfrom: ./shop.yaml\n", shop="name: s\nfrom: base.yaml\n")
    assert refusal(path) == ["base.yaml:2:7: './shop.yaml' is made from this one: a circle"]


def test_a_chain_has_an_end(tmp_path: Path) -> None:
    texts = {f"g{number}": f"name: g\nfrom: g{number + 1}.yaml\n" for number in range(9)}
    lay(tmp_path, **texts)
    told = "more than 8 definitions, each made from the next"
    assert refusal(tmp_path / "g0.yaml") == [f"g7.yaml:2:7: {told}"]


@pytest.mark.parametrize("name", ["/etc/passwd", "a b.yaml", "http://a/b.yaml", "$(id).yaml"])
def test_only_a_plain_path_is_a_parent(name: str, tmp_path: Path) -> None:
    path = lay(tmp_path, shop=f"name: shop\nfrom: {name!r}\n")
    assert "is not a distribution and its suite, or another definition" in refusal(path)[0]


def test_a_text_without_a_place_has_no_parent() -> None:
    with pytest.raises(DefinitionError, match="only a file is made from another file"):
        definition.parse(b"name: shop\nfrom: base.yaml\n", "-")


def test_generations_begin_with_the_first(tmp_path: Path) -> None:
    path = lay(
        tmp_path,
        base=BASE,
        mid="name: mid\nfrom: base.yaml\n",
        top="name: top\nfrom: mid.yaml\n",
    )
    found = generations(definition.load(str(path)), str(path))
    assert [(Path(place).name, each.name) for place, each in found] == [
        ("base.yaml", "base"),
        ("mid.yaml", "mid"),
        ("top.yaml", "top"),
    ]


def test_a_manifest_begins_with_the_stages_of_its_parent(tmp_path: Path) -> None:
    shop = load(tmp_path, "packages: [php]\nfiles: [{path: /etc/shop, content: shop}]")
    assert shop.parent is not None
    below = made(shop.parent.definition)
    own = made(shop.parent.definition, shop)
    types = [each["type"] for each in below["pipelines"][0]["stages"]]
    before = below["pipelines"][0]["stages"][: types.index("org.osbuild-pika.guest")]
    stages = own["pipelines"][0]["stages"]
    assert stages[: len(before)] == before
    assert own["pipelines"][0]["source-epoch"] == below["pipelines"][0]["source-epoch"]
    added = [each["type"].rpartition(".")[2] for each in stages[len(before) :]]
    assert added == ["deb", "files", "guest", "hook", "clean", "lint"]
    assert stages[len(before)]["options"]["mode"] == "install"
    assert stages[-1]["options"]["allow"] == ["init", "root-password"]
    curl = own["sources"]["org.osbuild.curl"]["items"]
    assert len(curl) == 2


def test_a_lock_answers_its_definition_and_its_parents_lock(tmp_path: Path) -> None:
    shop = load(tmp_path, "packages: [php]")
    assert shop.parent is not None
    below, own = locked(shop.parent.definition, shop)
    lock.check(own, shop, "shop.lock.json", below)
    newer = Lock(**{**vars(below), "packages": (images.package("base", True, "2"),)})
    told = r"\(the lock of what it is made from is another\): osbuild-pika lock"
    with pytest.raises(InputError, match=told):
        lock.check(own, shop, "shop.lock.json", newer)
    signed_again = Lock(**{**vars(below), "source_date_epoch": 7, "releases": ()})
    lock.check(own, shop, "shop.lock.json", signed_again)


def test_a_lock_of_a_definition_that_had_no_parent_is_none_of_one_that_has(tmp_path: Path) -> None:
    shop = load(tmp_path)
    assert shop.parent is not None
    below, _ = locked(shop.parent.definition, shop)
    with pytest.raises(InputError, match="from is another"):
        lock.check(below, shop, "shop.lock.json", below)
    with pytest.raises(InputError, match="from is another"):
        lock.check(locked(shop.parent.definition, shop)[1], images.define(), "shop.lock.json")


def test_a_lock_with_a_parent_is_read_back(tmp_path: Path) -> None:
    shop = load(tmp_path)
    assert shop.parent is not None
    _, own = locked(shop.parent.definition, shop)
    empty = Lock(**{**vars(own), "packages": ()})
    for each in (own, empty):
        assert lock.decode(lock.encode(each).encode(), "shop.lock.json") == each
