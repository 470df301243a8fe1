"""A service as a unit of systemd. Formats: systemd.syntax(7), systemd.service(5) of systemd 252."""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_ESCAPES = {"\\": "\\\\", '"': '\\"', "%": "%%", "\n": "\\n", "\t": "\\t", "\r": "\\r"}

# command: its program with an absolute path. env: sorted. user: who it runs as, None: whom the
# manager is. log: a file that is appended to, None: the journal. is_notify: it says by sd_notify
# that it is ready. target: what starts it once it is enabled.
Unit = namedtuple("Unit", "description command env user log is_notify target kill_after_s")

SYSTEM_TARGET = "multi-user.target"
USER_TARGET = "default.target"


def unit_text(unit: Unit) -> str:
    """All of a unit file."""
    after = "".join(f"{key}={value}\n" for key, value in properties(unit))
    return (
        f"[Unit]\nDescription={_literal(unit.description)}\nStartLimitIntervalSec=0\n\n"
        f"[Service]\nExecStart={command_line(unit.command)}\n{after}"
        f"\n[Install]\nWantedBy={unit.target}\n"
    )


def properties(unit: Unit) -> Iterable[tuple[str, str]]:
    """What [Service] says beside the command. 78, EX_CONFIG: it would fail again."""
    yield "Type", "notify" if unit.is_notify else "exec"
    for key in unit.env:
        yield "Environment", quote(f"{key}={unit.env[key]}")
    if unit.user is not None:
        yield "User", unit.user
    if unit.log is not None:
        for stream in ("StandardOutput", "StandardError"):
            yield stream, f"append:{_literal(unit.log)}"
    yield from (("Restart", "on-failure"), ("RestartSec", "1"), ("RestartPreventExitStatus", "78"))
    # To systemd a service that one of these ends has ended well. When it stops one itself, that
    # one stays down all the same.
    yield "RestartForceExitStatus", "SIGHUP SIGINT SIGTERM SIGPIPE"
    yield "TimeoutStopSec", str(unit.kill_after_s)


def command_line(command: Iterable[str]) -> str:
    """A command as ExecStart takes it. Variables are put into arguments, not into the path."""
    program, *arguments = command
    return " ".join((quote(program), *(quote(word).replace("$", "$$") for word in arguments)))


def quote(word: str) -> str:
    """A word as systemd reads it back, whatever is in it."""
    shown = (_ESCAPES.get(char, char if char >= " " else f"\\x{ord(char):02x}") for char in word)
    return '"' + "".join(shown) + '"'


def _literal(text: str) -> str:
    return text.replace("%", "%%")
