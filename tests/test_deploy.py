"""What deploy/ starts is what Poller takes: command line, configuration, variables, ports, probes."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from poller.cli import cli
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.options.secrets import secrets_in
from poller.web.access import OPEN
from state.place import DatabaseUrl

DEPLOY = Path(__file__).parents[1] / "deploy"
IMAGE = DEPLOY.parent / "Containerfile"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFESTS = {
    (one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
}
WORKER = COMPOSE["services"]["poller"]
POD = MANIFESTS["Deployment", "poller"]["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
SECRETS = {"POLLER_TOKEN": "t" * 20, "SHOP_TOKEN": "s", "CRM_SECRET": "whsec_" + "c2VjcmV0" * 6}


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return load(DEPLOY / "poller.toml", load_plugins())


def port_of(config: Any) -> int:
    return int(config.poller.address[1])


def test_the_configuration_is_valid_and_names_a_database(config: Any) -> None:
    assert isinstance(config.poller.state, DatabaseUrl)
    assert config.poller.token is not None


def test_both_run_the_same_configuration() -> None:
    text = (DEPLOY / "poller.toml").read_text()

    assert MANIFESTS["ConfigMap", "poller"]["data"]["poller.toml"] == text
    assert ".:/etc/poller:ro" in WORKER["volumes"]


@pytest.mark.parametrize("words", [WORKER["command"], CONTAINER["args"], ["run"]], ids=["compose", "pod", "image"])
def test_the_command_line_is_one_that_poller_takes(words: list[str]) -> None:
    context = cli.make_context("poller", list(words))
    name, command, rest = cli.resolve_command(context, [*context._protected_args, *context.args])

    assert command is not None
    command.make_context(name, rest, parent=context)
    assert f'CMD ["{words[0]}"]' in IMAGE.read_text()


def test_every_variable_that_the_configuration_names_is_given(config: Any) -> None:
    named = {secret.place for secret in secrets_in(config) if secret.kind == "env"}
    created = re.findall(r"--from-literal=(\w+)=", (DEPLOY / "kubernetes.yaml").read_text())

    assert named == set(SECRETS)
    assert named | {"PGPASSWORD"} == set(WORKER["environment"])
    assert named | {"PGPASSWORD"} == set(created)
    assert {"secretRef": {"name": "poller"}} in CONTAINER["envFrom"]


def test_the_file_is_where_the_image_looks_for_it() -> None:
    [place] = re.findall(r"POLLER_CONFIG=(\S+)", IMAGE.read_text())
    [mount] = CONTAINER["volumeMounts"]

    assert f"{mount['mountPath']}/poller.toml" == place
    assert {"name": "POLLER_CONFIG", "value": place} in CONTAINER["env"]
    assert any(volume.split(":")[1] == str(Path(place).parent) for volume in WORKER["volumes"])


def test_ports_and_probes_are_those_of_the_program(config: Any) -> None:
    [port] = CONTAINER["ports"]
    [service] = MANIFESTS["Service", "poller"]["spec"]["ports"]

    assert port["containerPort"] == service["port"] == port_of(config)
    assert WORKER["ports"][0].rpartition(":")[2] == str(port_of(config))
    for probe in ("readinessProbe", "livenessProbe"):
        asked = CONTAINER[probe]["httpGet"]
        assert asked["path"] in OPEN
        assert asked["port"] == port["name"]
        assert {header["value"] for header in asked["httpHeaders"]} <= config.poller.hosts
    assert f"http://localhost:{port_of(config)}/readyz" in WORKER["healthcheck"]["test"][-1]
    assert "trust_env=False" in WORKER["healthcheck"]["test"][-1]  # never by a proxy of the environment


def test_each_starts_postgresql_under_the_name_that_the_configuration_asks_and_three_workers(config: Any) -> None:
    user, host, name = re.fullmatch(r"postgresql://(\w+)@(\w+)/(\w+)", config.poller.state.url).groups()  # type: ignore[union-attr]
    started = COMPOSE["services"][host]["environment"]
    [pod] = MANIFESTS["StatefulSet", host]["spec"]["template"]["spec"]["containers"]
    given = {one["name"]: one.get("value") for one in pod["env"]}

    assert (started["POSTGRES_USER"], started["POSTGRES_DB"]) == (user, name)
    assert (given["POSTGRES_USER"], given["POSTGRES_DB"]) == (user, name)
    assert ("Service", host) in MANIFESTS
    assert WORKER["deploy"]["replicas"] == MANIFESTS["Deployment", "poller"]["spec"]["replicas"] == 3
    assert WORKER["depends_on"][host]["condition"] == "service_healthy"


def test_selectors_name_the_pods_and_volumes_are_there() -> None:
    for kind in ("Deployment", "StatefulSet"):
        for (found, _), one in MANIFESTS.items():
            if found == kind:
                assert one["spec"]["selector"]["matchLabels"] == one["spec"]["template"]["metadata"]["labels"]
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}
    assert {"data"} == set(COMPOSE["volumes"])


def test_the_docs_name_the_commands_that_start_them() -> None:
    page = (DEPLOY.parent / "docs" / "scale.md").read_text()

    for line in ("docker compose -f deploy/compose.yaml up", "kubectl apply -f deploy/kubernetes.yaml"):
        assert line in page
        assert (DEPLOY.parent / shlex.split(line)[-1 if "apply" in line else 3]).exists()
