"""A service as an init script of OpenRC, supervised by its supervise-daemon.

Formats: openrc-run(8), supervise-daemon(8) of OpenRC 0.45. What openrc-run itself would make of
the variables `command` and `command_args` loses blanks and expands stars: so the script has a
`start` of its own. supervise-daemon starts a service again whatever it ended with.
"""

from __future__ import annotations

import shlex
from collections import namedtuple

# command: its program with an absolute path. env: sorted. user: who it runs as, None: root.
# log: a file that is appended to, None: nowhere. needs: services that must run before it.
Script = namedtuple("Script", "name description command env user log needs kill_after_s")

_SUPERVISOR = "supervise-daemon"
_OWN = ("RC_", "EINFO_", "SVCNAME")


def is_own(key: str) -> bool:
    """Whether OpenRC takes a variable of that name from services, or goes by it itself."""
    return key.startswith(_OWN)


def script_text(script: Script) -> str:
    """All of a file of /etc/init.d; its mode: 0700, for the environment can be secret."""
    needs = "".join(f"\tneed {shlex.quote(name)}\n" for name in script.needs)
    exports = "".join(f"\t\texport {key}={shlex.quote(script.env[key])}\n" for key in script.env)
    program, *arguments = (shlex.quote(word) for word in script.command)
    command = " ".join((program, "--", *arguments))
    return (
        "#!/sbin/openrc-run\n# Written by osbuild-pika.\n"
        f"description={shlex.quote(script.description)}\n"
        f"supervisor={_SUPERVISOR}\n\n"
        "depend() {\n\tafter localmount bootmisc net\n\tuse logger dns\n"
        f"{needs}}}\n\n"
        'start() {\n\tebegin "Starting $RC_SVCNAME"\n'
        f"{_log_made(script)}"
        # Nothing that the environment names can stand between: it is the subshell's, and set last.
        f'\t(\n\t\tset -- "$(command -v {_SUPERVISOR})" "$RC_SVCNAME"\n{exports}'
        f'\t\texec "$1" "$2" --start {_options(script)} \\\n\t\t\t{command}\n'
        '\t)\n\teend $? "Failed to start $RC_SVCNAME"\n}\n'
    )


def _options(script: Script) -> str:
    """Of supervise-daemon: it starts again each second, for ever, and ends by SIGTERM first."""
    words = ["--respawn-delay", "1", "--respawn-max", "0"]
    words += ["--retry", f"SIGTERM/{int(script.kill_after_s)}/SIGKILL/5"]
    if script.user is not None:
        words += ["--user", script.user]
    if script.log is not None:
        words += ["--stdout", script.log, "--stderr", script.log]
    return shlex.join(words)


def _log_made(script: Script) -> str:
    """Its file is there, and the user's, before the service is."""
    if script.log is None:
        return ""
    folder, path = (shlex.quote(each) for each in (script.log.rpartition("/")[0], script.log))
    owner = "" if script.user is None else f" --owner {shlex.quote(script.user)}"
    made = f"mkdir -p {folder} && checkpath --file --mode 0640{owner} {path}"
    return f"\t{made} || {{ eend 1; return 1; }}\n"
