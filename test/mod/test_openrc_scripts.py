"""Init scripts as texts; test/run/test_openrc.py has OpenRC read and run them."""

from __future__ import annotations

import subprocess

import pytest

from osbuild_pika.inside.services.openrc import Script, is_own, script_text

SCRIPT = Script("pika-web", "the web's", ("/bin/a b", "it's"), {}, None, None, (), 10)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"env": {"A": "'\n$(id)"}, "user": "web", "log": "/var/log/a b/c", "needs": ("net", "a b")},
    ],
)
def test_a_shell_reads_the_script(changed: dict[str, object]) -> None:
    text = script_text(SCRIPT._replace(**changed))
    done = subprocess.run(["sh", "-n"], input=text.encode(), check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert text.startswith("#!/sbin/openrc-run\n")
    assert """'/bin/a b' -- 'it'"'"'s'\n""" in text


def test_what_is_asked_for_stands_in_the_script() -> None:
    text = script_text(SCRIPT._replace(needs=("net",), user="web", log="/var/log/x/web.log"))
    assert "\tneed net\n" in text
    assert "mkdir -p /var/log/x && checkpath --file --mode 0640 --owner web /var/log/x/web" in text
    assert "--user web --stdout /var/log/x/web.log --stderr /var/log/x/web.log" in text
    plain = script_text(SCRIPT)
    assert not [word for word in ("need", "--user", "--stdout", "checkpath") if word in plain]


@pytest.mark.parametrize(("key", "own"), [("RC_A", True), ("SVCNAME", True), ("SVC", False)])
def test_what_openrc_keeps_to_itself(key: str, own: bool) -> None:
    assert is_own(key) is own
