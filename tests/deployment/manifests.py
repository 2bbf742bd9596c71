"""``make manifests``: everything in ``k8s/`` against the schemas of Kubernetes' oldest and newest supported release."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.deployment.parts import TOP, need, sh
from tests.deployment.test_manifests import EXTENSIONS, OVERLAYS, everything, rendered

VALIDATE = TOP / ".venv" / "bin" / "kubernetes-validate"
VERSIONS = ("1.32", "1.37")


def judge(folder: Path, objects: list[dict[str, object]], version: str) -> str:
    file = folder / "all.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    return sh(VALIDATE, "--strict", "-k", version, file, check=False)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", [*OVERLAYS, "everything"])
def test_every_object_fits_its_schema(overlay: str, version: str, tmp_path: Path) -> None:
    need("kubectl", root=False)
    found = everything(tmp_path) if overlay == "everything" else rendered(TOP / "k8s/overlays" / overlay)
    objects = [one for one in found if one["apiVersion"] not in EXTENSIONS]
    said = judge(tmp_path, objects, version)

    assert said.count(" passed ") == len(objects) > 5, said


def test_a_misspelt_key_is_found(tmp_path: Path) -> None:
    need("kubectl", root=False)
    objects = rendered(TOP / "k8s/overlays/k3s")
    (daemon,) = [one for one in objects if one["kind"] == "StatefulSet"]
    daemon["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["periodSecond"] = 5

    assert "periodSecond" in judge(tmp_path, objects, VERSIONS[-1])
