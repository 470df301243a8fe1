"""Templates: what pongo2 parses passes, what it refuses is told with its line.

A real Incus (6.0.4) was given each of them: GOOD started, BAD did not.
"""

import pytest

from osbuild_pika.inside import metadata
from osbuild_pika.inside.lint.pongo import PongoError, parse

GOOD = [
    "",
    "no { braces } here, 100 %",
    "{{ container.name }}",
    '{{ config_get("user.x", "a \\" b") }} {{ properties.0 }}',
    "{{ 1.5 }} {{ devices.eth0.name }}",
    "{{- trigger|upper|default:'x' -}}",
    "{# a {{ comment #}{{ 1 + 2 * (3 - 4) ^ 2 }}",
    "{% if a == 1 and not b or c in d %}x{% elif !e %}y{% else %}z{% endif %}",
    "{% for k, v in devices sorted %}{{ forloop.Counter }}{{ k }}{% empty %}-{% endfor %}",
    "{% with x=1 y=2 %}{{ x }}{% endwith %}{% set z = 1 %}{{ z }}",
    "{% comment %}{% if %}{{ ( }}{% endcomment %}",
    "{% verbatim %}{{ {% {# {% endverbatim %}",
    "{% filter upper %}x{% endfilter %}{% now 'x' %}",
    "{% if config_get('user.network-config', '') == '' %}version: 1{% else %}x{% endif %}",
    metadata.HOSTNAME,
    metadata.HOSTS,
]


@pytest.mark.parametrize("text", GOOD)
def test_what_pongo2_parses_passes(text: str) -> None:
    assert all(name in text for name in parse(text))


BAD = {
    "{{ container.name": "'{{' is not closed",
    "{{ container.name }": "'}' has no meaning",
    "{{ container.name %}": "'}}' is expected, not '%}'",
    "{{ }}": "an expression is expected",
    "{{ a b }}": "'}}' expected at 'b'",
    "{{ a. }}": "behind '.'",
    "{{ f(a b) }}": "',' or ')' is expected at 'b'",
    "{{ (a }}": "')' is expected",
    "{{ 'a }}": "a string is not closed",
    "{{ a\n}}": "'{{' is not closed by '}}' on its line",
    "{{ a|nofilter }}": "'nofilter' is no filter",
    "{% include 'x.tpl' %}": "Incus forbids {% include %}",
    "{% ssi '/etc/shadow' %}": "Incus forbids {% ssi %}",
    "{{ devices['eth0'] }}": "'}}' expected at '['",
    "{{ config_get('a') }}": "config_get needs a key and a default",
    "{% with a=1, b=2 %}{% endwith %}": "a name is expected at ','",
    "{% set a %}": "'=' is expected",
    "{{ 3 - -4 }}": "an expression is expected at '-'",
    "{{ and }}": "an expression is expected at 'and'",
    "{{ a ? b }}": "'?' has no meaning",
    "{% iff a %}": "{% iff %} is no tag",
    "{% if a %}": "{% if %} is not closed",
    "{% if %}{% endif %}": "an expression is expected",
    "{% if a %}{% endfor %}": "{% endfor %} ends nothing, {% if %} is open",
    "{% endif %}": "{% endif %} ends nothing",
    "{% else %}": "{% else %} is no tag",
    "{% for a of b %}{% endfor %}": "needs 'in'",
    "{% for 1 in b %}{% endfor %}": "needs a name",
    "{% if a %}{% else b %}{% endif %}": "takes no arguments",
    "{% %}": "a tag's name is expected",
    "{# a": "a comment is closed",
    "{% verbatim %}": "{% verbatim %} is not closed",
    "{% comment %}": "{% comment %} is not closed",
    f"{{{{ {'(' * 10_000} }}}}": "nested deeper than",
    f"{{{{ {'[' * 10_000} }}}}": "an expression is expected",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:30])
def test_what_pongo2_refuses_is_told_with_its_line(text: str) -> None:
    with pytest.raises(PongoError) as raised:
        parse(f"first\n{text}")
    assert BAD[text] in str(raised.value)
    assert raised.value.line == 2


def test_what_a_template_refers_to_is_known() -> None:
    found = parse("{{ containr.name }}{{ path }}{% for x in y %}{{ x }}{% endfor %}")
    assert found == ("containr", "y")


# --- metadata from options -----------------------------------------------------------------------


def test_metadata_has_incus_own_name_of_the_architecture_and_default_templates() -> None:
    found, files = metadata.from_options({"architecture": "amd64", "creation_date": 7})
    assert found["architecture"] == "x86_64"
    assert found["templates"]["/etc/hostname"] == {
        "when": ["create", "copy"],
        "template": "hostname.tpl",
    }
    assert files == {"hostname.tpl": metadata.HOSTNAME, "hosts.tpl": metadata.HOSTS}


def test_templates_that_are_given_replace_the_default_ones() -> None:
    given = {"/etc/a/b": {"when": ["start"], "content": "x", "mode": "0600"}, "/c": {"when": []}}
    options = {"architecture": "x86_64", "creation_date": 7, "templates": given, "expiry_date": 9}
    found, files = metadata.from_options({**options, "properties": {"b": "1", "a": "2"}})
    assert files == {"etc-a-b.tpl": "x"}
    assert found["templates"] == {
        "/c": {"when": [], "template": "c.tpl"},
        "/etc/a/b": {"when": ["start"], "mode": "0600", "template": "etc-a-b.tpl"},
    }
    assert (found["expiry_date"], list(found["properties"])) == (9, ["a", "b"])


def test_every_alias_of_an_architecture_is_one_machine() -> None:
    assert metadata.architecture("arm64") == "aarch64"
    assert metadata.architecture("sparc99") is None
    assert metadata.runs_on("i686", "x86_64")
    assert not metadata.runs_on("x86_64", "i686")
