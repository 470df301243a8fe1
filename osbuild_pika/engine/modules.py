"""Module directories: where stages, devices, inputs, mounts and sources are found.

A module is `<directory>/<kind>/<name>`, an executable, with `<name>.meta.json` beside it; one
without that file may hold SCHEMA, SCHEMA_2 and CAPABILITIES as constants of its Python source.
The layout, and how the schema of a manifest's entry is put together, are upstream osbuild's (v191).
"""

import copy
import hashlib
import json
import re
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from osbuild_pika.datadir import data_folder
from osbuild_pika.errors import PikaError

KINDS = ("stages", "devices", "inputs", "mounts", "sources")
# A name becomes a path: no slash, no dot in front.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_TITLES = {kind: f"Pipeline {kind[:-1].capitalize()}" for kind in KINDS}


class _BadModule(Exception):
    """What is wrong with a module; it becomes Module.fault."""


class Module(NamedTuple):
    """What is known of a module.

    schema: JSON Schema (draft 4) of its entries in a manifest, for a stage the whole stage.
    None if the module cannot be used; fault then says why.
    """

    kind: str
    name: str
    directory: Path
    capabilities: frozenset[str]
    schema: Mapping[str, Any] | None
    fault: str = ""

    @property
    def executable(self) -> Path:
        return self.directory / self.kind / self.name

    @property
    def meta(self) -> Path:
        """The module's .meta.json, which need not be there."""
        return self.directory / self.kind / f"{self.name}.meta.json"

    def digest(self) -> str:
        """64 hex digits that change whenever the executable or the .meta.json does.

        Raises OSError if the executable cannot be read.
        """
        parts = [self.executable.read_bytes()]
        if self.meta.exists():
            parts.append(self.meta.read_bytes())
        each = "".join(hashlib.sha256(part).hexdigest() for part in parts)
        return hashlib.sha256(each.encode()).hexdigest()


class Modules:
    """Several module directories: the first one that has a module wins, even with a broken one."""

    def __init__(self, directories: Iterable[Path]) -> None:
        self.directories = tuple(directories)
        self._found: dict[tuple[str, str], Module | None] = {}

    def find(self, kind: str, name: str) -> Module | None:
        """Look a module up, once. kind: one of KINDS. name: of a manifest, so anything at all.

        Returns None if no directory has it, or if the name is none.
        """
        if not _NAME.fullmatch(name):
            return None
        if (kind, name) not in self._found:
            self._found[kind, name] = self._load(kind, name)
        return self._found[kind, name]

    def get(self, kind: str, name: str) -> Module:
        """A module that a manifest's check has seen. Raises PikaError if it is gone."""
        module = self.find(kind, name)
        if module is None or not module.executable.is_file():
            raise PikaError(f"{kind}/{name}: the module is gone")
        return module

    def all(self, *kinds: str) -> Iterator[Module | None]:
        """The modules of these kinds, by name within each."""
        for kind in kinds:
            places = [place for each in self.directories for place in (each / kind).glob("*.json")]
            for name in sorted(place.name.removesuffix(".meta.json") for place in places):
                yield self.find(kind, name)

    def _load(self, kind: str, name: str) -> Module | None:
        for directory in self.directories:
            place = directory / kind / name
            if place.is_file() or place.with_name(f"{name}.meta.json").is_file():
                return load_module(directory, kind, name)
        return None

    def runner(self, name: str) -> str | None:
        """The file name of the runner for a distribution such as org.osbuild.fedora39.

        That is the one of the same distribution with the highest version that is not above the
        wanted one; None if there is none.
        """
        distribution, version = _split_version(name)
        found = [
            (each_version, runner)
            for runner in self._runners()
            for each, each_version in [_split_version(runner)]
            if each == distribution and each_version <= version
        ]
        return max(found)[1] if found else None

    def host_runner(self) -> str:
        """What this host is called as a build root, whether or not there is a runner for it."""
        host = read_host_distribution()
        return self.runner(host) or host

    def has_runners(self) -> bool:
        return bool(self._runners())

    def _runners(self) -> set[str]:
        places = [directory / "runners" for directory in self.directories]
        return {file.name for place in places if place.is_dir() for file in place.iterdir()}


def standard(directories: Iterable[Path]) -> Modules:
    """The modules of these directories, and after them ours."""
    return Modules([*directories, data_folder("schemas").parent])


def _split_version(name: str) -> tuple[str, int]:
    distribution = name.rstrip("0123456789")
    digits = name[len(distribution) :]
    return distribution, int(digits) if 0 < len(digits) < 20 else 0


def read_host_distribution() -> str:
    """The name of this host's runner."""
    for path in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        if path.is_file():
            return host_distribution(path.read_text(errors="replace"))
    return host_distribution("")


def host_distribution(os_release: str) -> str:
    """The name of the host's runner, such as org.osbuild.debian12, from the text of os-release."""
    values = {}
    for line in os_release.split("\n"):
        key, _, value = line.strip().partition("=")
        if value and not key.startswith("#"):
            try:
                values[key] = "".join(shlex.split(value))
            except ValueError:  # an open quote
                continue
    return f"org.osbuild.{values.get('ID', 'linux')}{values.get('VERSION_ID', '').replace('.', '')}"


def load_module(directory: Path, kind: str, name: str) -> Module:
    """Read what a module says of itself. One that cannot be used says so in its `fault`."""
    meta = directory / kind / f"{name}.meta.json"
    try:
        told = _from_json(meta) if meta.is_file() else _from_python(directory / kind / name)
        schema = effective_schema(kind, name, told)
    except (_BadModule, OSError, ValueError, SyntaxError, RecursionError) as error:
        fault = f"{type(error).__name__}: {error}".removeprefix("_BadModule: ")
        return Module(kind, name, directory, frozenset(), None, fault)
    return Module(kind, name, directory, frozenset(told.get("capabilities", ())), schema)


def _from_json(path: Path) -> dict[str, Any]:
    """The content of a .meta.json: summary, description and schema or schema_2 or both."""
    meta = json.loads(path.read_bytes())
    if not isinstance(meta, dict):
        raise _BadModule(f"{path.name} is not an object")
    checks = {
        "summary": isinstance(meta.get("summary"), str),
        "description": _are_strings(meta.get("description")),
        "capabilities": _are_strings(meta.get("capabilities", [])),
        "schema": isinstance(meta.get("schema", {}), dict),
        "schema_2": isinstance(meta.get("schema_2", {}), dict),
    }
    wrong = [key for key, is_good in checks.items() if not is_good] + sorted(meta - checks.keys())
    if wrong:
        raise _BadModule(f"{path.name}: missing, wrong or unknown: {', '.join(wrong)}")
    if not meta.keys() & {"schema", "schema_2"}:
        raise _BadModule(f"{path.name} has neither schema nor schema_2")
    return meta


def _are_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _from_python(path: Path) -> dict[str, Any]:
    """What the constants SCHEMA, SCHEMA_2 (JSON without its outer braces) and CAPABILITIES say.

    What is no constant counts as absent.
    """
    import ast  # 7 ms; ours all have a .meta.json

    told: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an escape sequence that is none: not ours to mend
        tree = ast.parse(path.read_bytes())
    for node in tree.body:
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            name = target.id if isinstance(target, ast.Name) else ""
            if name in ("SCHEMA", "SCHEMA_2") and isinstance(node.value, ast.Constant):
                told[name.lower()] = json.loads(f"{{{node.value.value!s}}}")
            elif name == "CAPABILITIES":
                told["capabilities"] = ast.literal_eval(node.value)
    capabilities = told.get("capabilities", [])
    if not isinstance(capabilities, list | tuple | set) or not _are_strings(list(capabilities)):
        raise _BadModule("CAPABILITIES are no list of strings")
    return told


def effective_schema(kind: str, name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a manifest's entry, put together as upstream does.

    told: `schema` is of format 1, `schema_2` of format 2 and preferred; what they are schemas of
    differs by kind. Raises _BadModule if there is none where one is needed.
    """
    old, new = copy.deepcopy(told.get("schema")), copy.deepcopy(told.get("schema_2"))
    schema: dict[str, Any] = {
        "title": _TITLES[kind],
        "type": "object",
        "additionalProperties": kind == "devices",
    }
    is_this = {"enum": [name]}
    if kind == "stages":
        entries = {"type": is_this, **(new or {"options": old or {}})}
        entries.setdefault("mounts", {"type": "array"})
        entries.setdefault("devices", {"type": "object", "additionalProperties": True})
        schema |= {"properties": entries, "required": ["type"]}
    elif not (new or (old and kind != "mounts")):
        raise _BadModule("it has no schema_2" if kind == "mounts" else "it has no schema")
    elif kind == "devices":
        schema["properties"] = {"type": is_this, "options": new or old}
    else:
        schema |= new or old or {}
    if kind == "mounts":
        _properties(schema)["type"] = is_this
    return _lift_definitions(schema)


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        raise _BadModule("its schema has no properties")
    return properties


def _lift_definitions(schema: dict[str, Any]) -> dict[str, Any]:
    """Move `definitions` to the top, where the schema's own references look for them."""
    properties = schema.get("properties")
    if isinstance(properties, dict):
        for holder in (properties, properties.get("options")):
            if isinstance(holder, dict) and "definitions" in holder:
                schema["definitions"] = holder.pop("definitions")
    return schema
