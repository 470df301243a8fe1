"""Every verb and every option of the command line stands in docs/reference/cli.md."""

from pathlib import Path

import click
import pytest

from osbuild_pika.cli.verbs import osbuild_pika

REFERENCE = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text()
CONTEXT = click.Context(osbuild_pika)


@pytest.mark.parametrize("name", osbuild_pika.list_commands(CONTEXT))
def test_a_verb_is_documented(name: str) -> None:
    assert f"`{name} " in REFERENCE or f"`{name}`" in REFERENCE


@pytest.mark.parametrize(
    "name", ["build", "plan", "cancel", "gc", "doctor", "osbuild", "watch", "launch"]
)
def test_its_options_are_documented(name: str) -> None:
    verb = osbuild_pika.get_command(CONTEXT, name)
    assert verb is not None
    options = [each for each in verb.params if isinstance(each, click.Option)]
    names = {word for each in options for word in each.opts if word.startswith("--")}
    assert not {word for word in names if word not in REFERENCE}
