"""The manifests in ``k8s/``: what they promise, and that they speak of the same things as the code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hengd import listeners
from hengd.cli import cli
from hengd.elsewhere import announce
from hengd.schedule import plan_of
from hengd.settings import BY_KEY, load_settings, split_address
from tests.deployment.parts import TOP
from tests.service import Service

K8S = TOP / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())
EXTENSIONS = {"monitoring.coreos.com/v1"}
"""API groups that are not of Kubernetes itself."""
ALLOWED = {"emptyDir", "configMap", "secret", "persistentVolumeClaim"}
"""Kinds of volumes of a restricted pod that ours uses."""
METRIC = re.compile(r"\b(?:henge|process)_[a-z_]+\b")

Objects = list[dict[str, Any]]


def rendered(folder: Path) -> Objects:
    """What kustomize makes of a folder."""
    if shutil.which("kubectl") is None:
        pytest.skip("NOT PROVED: this needs kubectl, which brings kustomize")
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return list(yaml.safe_load_all(done.stdout))


def everything(folder: Path) -> Objects:
    """The k3s overlay with every component that can be had beside the others."""
    names = [name for name in COMPONENTS if name not in ("prometheus-operator", "mdns-announcer")]
    overlay = with_components(folder / "most", *names)
    operator = with_components(folder / "operator", "prometheus-operator")
    return [*overlay, *(one for one in operator if one not in overlay)]


def with_components(folder: Path, *names: str) -> Objects:
    """The k3s overlay with these components."""
    folder.mkdir()
    kustomization = {
        "resources": [relative(K8S / "overlays/k3s", folder)],
        "components": [relative(K8S / "components" / name, folder) for name in names],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return rendered(folder)


def relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path, folder)


def one(objects: Objects, kind: str, name: str = "henge") -> dict[str, Any]:
    (found,) = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pods(objects: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    """Namespace and pod of everything that makes pods."""
    for each in objects:
        template = each.get("spec", {}).get("template")
        if template is not None:
            yield each["metadata"]["namespace"], template["spec"]


def offences(pod: dict[str, Any]) -> set[str]:
    """What Pod Security *restricted* has against a pod."""
    wide, found = pod.get("securityContext", {}), set()
    found |= {key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)}
    found |= {"volume" for volume in pod.get("volumes", []) if not ALLOWED & set(volume)}
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        own = container.get("securityContext", {})
        has = {**wide, **own}
        found |= {"hostPort" for port in container.get("ports", []) if "hostPort" in port}
        found |= {"privileges"} if own.get("allowPrivilegeEscalation") is not False or own.get("privileged") else set()
        found |= {"capabilities"} if own.get("capabilities") != {"drop": ["ALL"]} else set()
        found |= {"root"} if not has.get("runAsNonRoot") or has.get("runAsUser") == 0 else set()
        found |= {"seccomp"} if has.get("seccompProfile") != {"type": "RuntimeDefault"} else set()
    return found


@pytest.fixture(params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> Objects:
    return rendered(K8S / "overlays" / request.param)


def test_pods_are_restricted_but_for_the_announcers_network(objects: Objects) -> None:
    found = {namespace: offences(pod) for namespace, pod in pods(objects)}
    enforced = {
        each["metadata"]["name"]: each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for each in objects
        if each["kind"] == "Namespace"
    }

    assert found == {"henge": set(), "henge-announcer": {"hostNetwork"}}
    assert enforced == {"henge": "restricted", "henge-announcer": "privileged"}


def test_every_container_is_read_only_and_bounded(objects: Objects) -> None:
    for _, pod in pods(objects):
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert "memory" in container["resources"]["limits"]


def test_there_is_one_daemon_and_its_volume_outlives_everything(objects: Objects) -> None:
    spec = one(objects, "StatefulSet")["spec"]

    assert (spec["replicas"], spec["updateStrategy"]) == (1, {"type": "RollingUpdate"})
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert spec["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "local-path"
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > 2 * listeners.GRACE_S


def test_services_policies_and_probes_name_ports_that_are_there(objects: Objects) -> None:
    (container,) = one(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    named = {container[f"{probe}Probe"]["httpGet"]["port"] for probe in ("startup", "readiness", "liveness")}
    for each in objects:
        if each["kind"] == "Service":
            named |= {port["targetPort"] for port in each["spec"]["ports"]}
            assert {port["port"] for port in each["spec"]["ports"]} == {4364}
        if each["kind"] == "NetworkPolicy":
            named |= {port["port"] for rule in each["spec"]["ingress"] for port in rule["ports"]}

    assert named <= set(ports)
    assert ports == {
        "devices": split_address(BY_KEY["listen.devices"].default)[1],
        "local": split_address(BY_KEY["listen.local"].default)[1],
    }


def test_the_local_port_is_open_to_nobody_but_probes(objects: Objects) -> None:
    (policy,) = [each for each in objects if each["kind"] == "NetworkPolicy"]

    assert policy["spec"]["ingress"] == [{"ports": [{"port": "devices", "protocol": "TCP"}]}]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy["spec"]


def test_selectors_find_the_daemon_and_only_it(objects: Objects) -> None:
    labels = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in objects
        if "template" in each.get("spec", {})
    }
    selectors = [each["spec"]["selector"] for each in objects if each["kind"] == "Service"]
    selectors += [each["spec"]["podSelector"]["matchLabels"] for each in objects if each["kind"] == "NetworkPolicy"]
    for selector in selectors:
        assert [name for name, has in labels.items() if selector.items() <= has.items()] == ["henge"]


def test_the_settings_are_good_and_the_claims_about_them_true(objects: Objects, tmp_path: Path) -> None:
    (config,) = [each for each in objects if each["kind"] == "ConfigMap" and "hengd.toml" in each["data"]]
    pod = one(objects, "StatefulSet")["spec"]["template"]["spec"]
    (tmp_path / "hengd.toml").write_text(config["data"]["hengd.toml"])
    settings = load_settings(files=[tmp_path / "hengd.toml"])
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}

    assert settings["listen.local"].startswith("0.0.0.0:")
    assert settings["join.mdns"] is False
    assert str(Path(settings["listen.socket"]).parent) == mounts["run"] == "/run/henge"
    assert {volume["name"] for volume in pod["volumes"]} | {"data"} == set(mounts)
    assert config["metadata"]["name"] in {
        volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume
    }


def test_commands_are_those_of_the_programs(objects: Objects) -> None:
    command, *flags = one(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["args"]
    asked, *options = one(objects, "Deployment", "henge-announcer")["spec"]["template"]["spec"]["containers"][0]["args"]
    run = cli.commands[command].make_context(command, list(flags))
    told = announce.make_context(asked, [option.replace("$(NODE_ADDRESS)", "192.168.1.5") for option in options])

    assert str(run.params["config"]) == "/etc/henge/hengd.toml"
    assert told.params["url"] == "https://henge-headless.henge.svc:4364"
    assert told.params["addresses"] == ("192.168.1.5",)


def test_the_announced_port_is_the_services(objects: Objects) -> None:
    service = one(objects, "Service")["spec"]
    args = one(objects, "Deployment", "henge-announcer")["spec"]["template"]["spec"]["containers"][0]["args"]
    announced = [int(arg.partition("=")[2]) for arg in args if arg.startswith("--port=")] or [4364]
    port = service["ports"][0]

    assert announced == [port["nodePort"] if service["type"] == "NodePort" else port["port"]]


async def test_probes_ask_for_routes_that_are_served(daemon: Service) -> None:
    objects = rendered(K8S / "base")
    (container,) = one(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    asked = {container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")}

    assert asked <= {route.path for route in daemon.app.routes}


def test_both_programs_run_the_image_that_make_image_makes() -> None:
    made = re.search(r"^IMAGE \?= (\S+)$", (TOP / "Makefile").read_text(), re.MULTILINE)
    uid = re.search(r"^USER (\d+)", (TOP / "Containerfile").read_text(), re.MULTILINE)
    found = list(pods(rendered(K8S / "overlays/k3s")))

    assert made is not None
    assert uid is not None
    assert {container["image"] for _, pod in found for container in pod["containers"]} == {made[1]}
    assert {pod["securityContext"]["runAsUser"] for _, pod in found} == {int(uid[1])}


def test_on_talos_both_come_from_a_registry() -> None:
    found = list(pods(rendered(K8S / "overlays/talos")))

    assert {container["image"] for _, pod in found for container in pod["containers"]} == {
        "registry.lan:5000/henge:dev"
    }


# ---- components --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in COMPONENTS if name != "mdns-announcer"])
def test_a_component_can_be_added_and_keeps_the_pod_restricted(name: str, tmp_path: Path) -> None:
    found = with_components(tmp_path / "with", name)

    assert found != rendered(K8S / "overlays/k3s")
    assert {namespace: offences(pod) for namespace, pod in pods(found)}["henge"] == set()


@pytest.mark.parametrize("name", ["prometheus", "prometheus-operator"])
def test_prometheus_is_let_in_at_the_local_port_alone(name: str, tmp_path: Path) -> None:
    policy = one(with_components(tmp_path / "with", name), "NetworkPolicy", "henge-prometheus")

    assert policy["spec"]["ingress"] == [
        {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "ports": [{"port": "local", "protocol": "TCP"}],
        }
    ]


def test_the_key_of_the_secrets_comes_from_a_file_that_the_daemon_may_read(tmp_path: Path) -> None:
    pod = one(with_components(tmp_path / "with", "secret-key"), "StatefulSet")["spec"]["template"]["spec"]
    environment = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "key"]
    path = load_settings(environ=environment)["secrets.key_file"]

    assert {"name": "key", "mountPath": str(Path(path).parent), "readOnly": True} in pod["containers"][0][
        "volumeMounts"
    ]
    assert [item["path"] for item in volume["secret"]["items"]] == [Path(path).name]
    assert volume["secret"]["defaultMode"] & 0o037 == 0, "hengd refuses a key that others can read"


def test_backups_go_to_a_volume_of_their_own_sealed_by_a_secret_that_the_daemon_may_read(tmp_path: Path) -> None:
    objects = with_components(tmp_path / "with", "backup")
    pod = one(objects, "StatefulSet")["spec"]["template"]["spec"]
    settings = load_settings(environ={each["name"]: each["value"] for each in pod["containers"][0]["env"]})
    plan = plan_of(settings)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes.get(mount["name"]) for mount in pod["containers"][0]["volumeMounts"]}

    assert plan is not None
    assert mounts[str(plan.folder)]["persistentVolumeClaim"]["claimName"] == "henge-backups"
    assert one(objects, "PersistentVolumeClaim", "henge-backups")["metadata"]["namespace"] == "henge"
    assert mounts[str(Path(plan.passphrase_file).parent)]["secret"]["defaultMode"] & 0o037 == 0


async def test_alerts_and_dashboard_speak_of_metrics_that_there_are(daemon: Service) -> None:
    async with daemon.admin() as admin:
        text = (await admin.call("GET", "/metrics")).body.decode()
    served = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    rules = yaml.safe_load((K8S / "components/prometheus-operator/rules.yaml").read_text())
    asked = [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    board = json.loads((K8S / "components/grafana/henge.json").read_text())
    asked += [target["expr"] for panel in board["panels"] for target in panel["targets"]]

    assert len(asked) > 10
    assert [expression for expression in asked if not set(METRIC.findall(expression)) <= served] == []


# ---- files -------------------------------------------------------------------------------------------------


def test_every_file_is_of_use_and_every_file_named_is_there() -> None:
    used = set()
    for kustomization in K8S.rglob("kustomization.yaml"):
        used.add(kustomization)
        content = yaml.safe_load(kustomization.read_text())
        named = [*content.get("resources", []), *content.get("components", [])]
        named += [file for made in content.get("configMapGenerator", []) for file in made["files"]]
        for name in named:
            path = (kustomization.parent / name).resolve()
            used.add(path / "kustomization.yaml" if path.is_dir() else path)

    assert used == {path for path in K8S.rglob("*") if path.is_file()}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_components_that_an_overlay_offers_are_there(overlay: str) -> None:
    text = (K8S / "overlays" / overlay / "kustomization.yaml").read_text()

    assert sorted(re.findall(r"^ +(?:# )?- \.\./\.\./components/(\S+)$", text, re.MULTILINE)) == COMPONENTS
