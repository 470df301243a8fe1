"""The exit codes are a promise to scripts: they never change."""

from pathlib import Path

from syntax import calls

from osbuild_pika.errors import ExitCode, InputError, PikaError

PACKAGE = Path(__file__).parents[2] / "osbuild_pika"


def test_the_exit_codes_are_frozen() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "FAILED": 1,
        "BAD_INPUT": 2,
        "HOST_NOT_FIT": 3,
        "PUBLISH_FAILED": 4,
        "GUEST_FAILED": 5,
        "BUSY": 75,
        "TIMED_OUT": 124,
        "INTERRUPTED": 130,
        "BROKEN_PIPE": 141,
        "TERMINATED": 143,
    }


def test_every_error_knows_its_exit_code() -> None:
    assert PikaError.exit_code == ExitCode.FAILED
    assert InputError.exit_code == ExitCode.BAD_INPUT


def test_only_the_command_line_ends_the_process() -> None:
    below = [path for path in PACKAGE.rglob("*.py") if "cli" not in path.parts]
    ends = [end for path in below for end in calls(path, "sys.exit", "exit", "os._exit")]
    # Command lines of their own: both of a guest, what a sandbox runs, the processes of a build
    # and of a workitem.
    of_guests = ("lifecycle.py", "inside/guestreport.py")
    of_sandboxes = ("inside/report.py", "inside/stage.py")
    programs = (*of_guests, *of_sandboxes, "engine/__main__.py", "participant/__main__.py")
    assert {end.rpartition(":")[0] for end in ends} == {str(PACKAGE / name) for name in programs}
