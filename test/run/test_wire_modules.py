"""Our sources, inputs and mounts answer what was recorded of upstream's."""

import json
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika.datadir import data_folder
from osbuild_pika.host import ServiceManager

WIRE = Path(__file__).parents[1] / "data/osbuild/wire"
KINDS = {"peer-source-inline": "source", "peer-input-requests": "input"}
KINDS["peer-mount-requests"] = "mount"

# Where ours is better: a part of the recorded answer -> what ours has instead. Upstream names the
# Python error that befell its service; one broken item of an inline source costs all of them.
BETTER = {
    '"value": "\'api\'"': ("exception", "the argument refs of map is missing"),
    '"value": "\'root\'"': ("exception", "the argument target of mount is missing"),
    "Incorrect padding": ("reply", "the data is not base64: Incorrect padding"),
}


@pytest.mark.parametrize("name", KINDS)
def test_recorded_requests_are_answered(name: str, tmp_path: Path) -> None:
    recorded = json.loads((WIRE / f"{name}.json").read_text())
    kind = KINDS[name]
    executable = data_folder(f"{kind}s") / recorded["service"]
    with ServiceManager() as services:
        client = services.start(f"{kind}/{recorded['service']}", str(executable))
        sock = client._connection.socket
        sock.settimeout(20)
        for exchange in recorded["exchange"]:
            sock.send(exchange["sent"].replace("@WORK@", str(tmp_path)).encode())
            answer = json.loads(sock.recv(1 << 20))
            check(answer, exchange["received"].replace("@WORK@", str(tmp_path)))
        assert client.stop() == recorded["after_end_of_file"]["exit_code"]
        assert list(client.lines) == recorded["after_end_of_file"]["output"].splitlines()


def check(answer: dict[str, Any], recorded: str) -> None:
    better = next((BETTER[part] for part in BETTER if part in recorded), None)
    if better is not None:
        assert answer["type"] == better[0]
        assert better[1] in json.dumps(answer)
        return
    wanted = json.loads(recorded)
    for each in (answer, wanted):
        each["data"].pop("backtrace", None)
    assert answer == wanted
