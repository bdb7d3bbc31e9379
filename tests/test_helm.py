"""The chart says what the programs read, no more and no less."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from idtrace.errors import InputError
from registry.config import RegistryConfig
from resolver.config import ResolverConfig

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm" / "idtrace"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text("utf-8"))
TEMPLATE = (CHART / "templates" / "node.yaml").read_text("utf-8")
PARSERS = {"registry": RegistryConfig.parse, "resolver": ResolverConfig.parse}
# What no default can know.
GIVEN: dict[str, dict[str, Any]] = {
    "registry": {"zones": ["88.118"], "parents": ["n88.example:7001"]},
    "resolver": {"root_endpoints": ["root.example:7001"]},
}
ROLES = pytest.mark.parametrize("role", list(PARSERS))


def keys_read(role: str) -> set[str]:
    """The keys that a node's configuration asks its table for, those of inner tables included."""
    readers = {"text", "boolean", "integer", "seconds", "path", "texts", "endpoints"}
    return {
        str(node.args[0].value)
        for node in ast.walk(ast.parse((ROOT / role / "config.py").read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in readers
        and isinstance(node.args[0], ast.Constant)
    }


def keys_set_by_the_chart() -> set[str]:
    config = TEMPLATE.partition('define "idtrace.config"')[2].partition("- range")[0]
    return set(re.findall(r"^(\w+) = ", config, re.MULTILINE))


def leaves(table: dict[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield key


def minimal(role: str) -> dict[str, Any]:
    """What the chart writes for every node of a role, and what an operator has to give."""
    paths = {
        "data": "/var/lib/idtrace",
        "node_key": "/etc/idtrace/keys/node.key",
        "passphrase_env": "IDTRACE_PASSPHRASE",
    }
    common = {"listen": "0.0.0.0:9090", "root_key": "/etc/idtrace/keys/root.pub"}
    return common | (paths if role == "registry" else {}) | GIVEN[role]


@ROLES
def test_the_values_have_every_key_that_the_program_reads(role: str) -> None:
    chart = keys_set_by_the_chart()
    assert {"listen", "root_key", "data", "node_key", "passphrase_env"} == chart
    assert not chart & VALUES[role].keys()
    assert set(leaves(VALUES[role])) | chart == (keys_read(role) | chart) - {"role"}


@ROLES
def test_the_values_are_the_defaults_of_the_program(role: str, tmp_path: Path) -> None:
    parse = PARSERS[role]
    assert parse(VALUES[role] | minimal(role), tmp_path) == parse(minimal(role), tmp_path)


def described(values: dict[str, Any], schema: dict[str, Any], path: str = "values") -> None:
    """Each table's keys are the schema's, and the schema refuses others."""
    assert schema["additionalProperties"] is False, path
    assert values.keys() == schema["properties"].keys() - {"global"}, path
    for key, value in values.items():
        inner = schema["properties"][key]
        if isinstance(value, dict) and "properties" in inner:
            described(value, inner, f"{path}.{key}")


def test_the_schema_describes_every_value() -> None:
    described(VALUES, SCHEMA)


@ROLES
def test_the_schema_has_the_bounds_of_the_program(role: str, tmp_path: Path) -> None:
    """A value just within the schema's bounds starts a node, and one just outside does not."""
    tried = 0
    for path, bounds in numbers(SCHEMA["properties"][role]):
        for bound, step in ((bounds["minimum"], -1), (bounds["maximum"], 1)):
            tried += 1
            PARSERS[role](with_value(role, path, bound), tmp_path)
            with pytest.raises(InputError, match=path[-1]):
                PARSERS[role](with_value(role, path, bound + step), tmp_path)
    assert tried >= 8


def numbers(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    for key, inner in schema["properties"].items():
        if inner.get("type") in {"integer", "number"}:
            yield (*path, key), inner
        elif "properties" in inner:
            yield from numbers(inner, (*path, key))


def with_value(role: str, path: tuple[str, ...], value: float) -> dict[str, Any]:
    table: dict[str, Any] = minimal(role)
    inner = table
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
    return table


def test_the_chart_and_the_program_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (chart["name"], chart["appVersion"]) == (project["name"], project["version"])


def rendered(role: str, *more: str) -> dict[str, Any]:
    """Manifests by kind, as helm renders them; skips the test where helm is not installed."""
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("helm is not installed here: nothing is rendered")
    given = [f"--set-json={role}.{key}={json.dumps(value)}" for key, value in GIVEN[role].items()]
    command = [
        helm,
        "template",
        "node",
        str(CHART),
        "--kube-version=1.30",
        f"--set=role={role}",
        "--set=keys.secret=keys",
    ]
    done = subprocess.run([*command, *given, *more], capture_output=True, text=True, check=True, timeout=60)
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(done.stdout)}


@ROLES
def test_what_helm_renders_starts_a_node(role: str, tmp_path: Path) -> None:
    manifests = rendered(role)
    parse = PARSERS[role]
    config = tomllib.loads(manifests["ConfigMap"]["data"]["node.toml"])
    assert parse(config, tmp_path) == parse(minimal(role), tmp_path)
    kind = "StatefulSet" if role == "registry" else "Deployment"
    (container,) = manifests[kind]["spec"]["template"]["spec"]["containers"]
    assert container["args"][:5] == ["idtrace", "node", "run", "--role", role]
    assert all(container[f"{probe}Probe"]["grpc"] == {"port": 9090} for probe in ("startup", "readiness", "liveness"))
    assert manifests["Service"]["spec"]["selector"] == manifests[kind]["spec"]["selector"]["matchLabels"]


def test_a_log_has_its_keys_and_its_port() -> None:
    log = {"origin": "log.example/88.118", "key": "/etc/idtrace/keys/log.key", "listen": "0.0.0.0:9080"}
    given = [f"--set=registry.log.{key}={value}" for key, value in log.items()]
    manifests = rendered("registry", *given, "--set=keys.more={log.key}")
    assert tomllib.loads(manifests["ConfigMap"]["data"]["node.toml"])["log"].items() >= log.items()
    assert [port["port"] for port in manifests["Service"]["spec"]["ports"]] == [9090, 9080]
    pod = manifests["StatefulSet"]["spec"]["template"]["spec"]
    assert [port["containerPort"] for port in pod["containers"][0]["ports"]] == [9090, 9080]
    assert [item["key"] for item in pod["volumes"][1]["secret"]["items"]] == ["root.pub", "node.key", "log.key"]


def test_the_epcis_interface_has_its_tokens_and_its_port() -> None:
    events = {"listen": "0.0.0.0:9070", "tokens": "/etc/idtrace/keys/tokens", "reading": "open"}
    given = [f"--set=registry.events.{key}={value}" for key, value in events.items()]
    manifests = rendered("registry", *given, "--set=keys.more={tokens}")
    assert tomllib.loads(manifests["ConfigMap"]["data"]["node.toml"])["events"] == events
    ports = [(port["name"], port["port"]) for port in manifests["Service"]["spec"]["ports"]]
    assert ports == [("grpc", 9090), ("epcis", 9070)]
    pod = manifests["StatefulSet"]["spec"]["template"]["spec"]
    assert [port["containerPort"] for port in pod["containers"][0]["ports"]] == [9090, 9070]


@pytest.mark.parametrize(
    "wrong", ["--set=replicas=2", "--set=keys.secret=", "--set=registry.zone=88", "--set-json=registry.zones=[]"]
)
def test_helm_refuses_wrong_values(wrong: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        rendered("registry", wrong)
