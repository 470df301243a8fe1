"""Which layers are sound, and which ones go first: decisions without a disk."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import key

from osbuild_pika.engine import layers, overlay
from osbuild_pika.engine.layers import Damaged, Info, Kept


def info(name: str, base: str | None = None, is_whole: bool = False) -> Info:
    below = base and f"serial of {base}"
    return Info(
        key=key(name),
        id=key(f"id {name}"),
        base=base and key(base),
        serial=f"serial of {name}",
        below=below,
        type="org.example.stage",
        created=1,
        size_bytes=4096,
        duration_s=0.25,
        is_whole=is_whole,
    )


GOOD = info("b", "a")
CHAIN = {each.key: each for each in (info("a"), GOOD, info("c", "b"))}


def test_an_info_survives_its_file() -> None:
    assert layers.decode(layers.encode(GOOD), GOOD.key) == GOOD


def test_an_info_that_is_cut_anywhere_is_damaged() -> None:
    whole = layers.encode(GOOD)
    for cut in range(len(whole) - 2):  # without "}\n"
        with pytest.raises(Damaged, match="torn"):
            layers.decode(whole[:cut], GOOD.key)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("key", 1), ("key", key("other")), ("id", None), ("base", "../../etc"), ("base", 1)),
        *(("base", GOOD.key), ("created", "now"), ("created", None), ("size_bytes", -1)),
        *(("is_whole", 1), ("serial", None), ("below", 5), ("type", [])),
    ],
)
def test_an_info_that_no_commit_writes_is_damaged(name: str, value: Any) -> None:
    document = {**GOOD._asdict(), name: value}
    with pytest.raises(Damaged):
        layers.decode(json.dumps(document).encode(), GOOD.key)


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b"{}", b"[" * 60_000, b"\xff", b"NaN"])
def test_foreign_text_is_damaged(text: bytes) -> None:
    with pytest.raises(Damaged):
        layers.decode(text, GOOD.key)


def test_a_chain_goes_down_to_the_lowest_layer() -> None:
    assert [each.key for each in layers.chain(key("c"), CHAIN.get)] == list(CHAIN)
    assert layers.chain(key("nothing"), CHAIN.get) == []


def test_a_whole_layer_needs_nothing_below() -> None:
    whole = info("c", "b", is_whole=True)
    assert layers.chain(whole.key, {whole.key: whole}.get) == [whole]


def test_a_layer_whose_base_is_gone_is_damaged() -> None:
    with pytest.raises(Damaged, match="below it is missing"):
        layers.chain(key("c"), {name: CHAIN[name] for name in (key("c"), key("b"))}.get)


def test_a_layer_whose_base_was_built_anew_is_damaged() -> None:
    anew = CHAIN[key("a")]._replace(serial="another")
    with pytest.raises(Damaged, match="was built anew"):
        layers.chain(key("c"), {**CHAIN, key("a"): anew}.get)


def test_a_ring_is_damaged() -> None:
    ring = {each.key: each for each in (info("a", "c"), info("b", "a"), info("c", "b"))}
    with pytest.raises(Damaged, match="below itself"):
        layers.chain(key("c"), ring.get)


KEPT = {
    "old base": Kept(None, 10, 1),
    "old leaf": Kept("old base", 10, 5),
    "new leaf": Kept("old base", 10, 9),
    "alone": Kept(None, 10, 7),
}


@pytest.mark.parametrize(
    ("max_bytes", "gone"),
    [
        (40, []),
        (39, ["old leaf"]),
        (20, ["old leaf", "alone"]),
        (10, ["old leaf", "alone", "new leaf"]),
        (0, ["old leaf", "alone", "new leaf", "old base"]),
    ],
)
def test_the_least_recently_used_leaf_goes_first(max_bytes: int, gone: list[str]) -> None:
    assert layers.victims(KEPT, (), max_bytes) == gone


def test_what_is_pinned_stays_with_all_below_it() -> None:
    assert layers.victims(KEPT, {"old leaf"}, 0) == ["alone", "new leaf"]


@given(st.data())
def test_no_choice_leaves_a_layer_without_its_base(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 12))
    names = [str(number) for number in range(size)]
    kept = {}
    for number, name in enumerate(names):
        base = data.draw(st.sampled_from([None, *names[:number]]))
        numbers = st.integers(0, 50)
        kept[name] = Kept(base, data.draw(numbers), data.draw(numbers))
    pinned = data.draw(st.sets(st.sampled_from(names))) if names else set()
    limit = data.draw(st.integers(0, 400))
    gone = layers.victims(kept, pinned, limit)
    left = {name: each for name, each in kept.items() if name not in gone}
    assert len(set(gone)) == len(gone)
    assert not pinned & set(gone)
    assert all(each.base is None or each.base in left for each in left.values())
    needed = {each.base for each in left.values()} | pinned
    assert sum(each.size_bytes for each in left.values()) <= limit or set(left) <= needed
    assert not gone or sum(kept[name].size_bytes for name in [*left, gone[-1]]) > limit


def test_a_hundred_layers_fit_into_a_page_of_options() -> None:
    fds = range(100_000, 100_000 + layers.MAX_CHAIN)
    assert len(overlay.options(fds, (1_000_000, 1_000_001), in_user_namespace=True)) < 4096


def test_a_mount_is_as_the_design_says() -> None:
    assert overlay.options([7, 8], (9, 10), in_user_namespace=False) == (
        "lowerdir=/proc/self/fd/7:/proc/self/fd/8,upperdir=/proc/self/fd/9,"
        "workdir=/proc/self/fd/10,volatile,redirect_dir=on,metacopy=off,index=off"
    )
    assert overlay.options([7, 8], None, in_user_namespace=True) == (
        "lowerdir=/proc/self/fd/7:/proc/self/fd/8,userxattr,metacopy=off,index=off"
    )
