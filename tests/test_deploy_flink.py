"""The manifests for Kubernetes: valid by Kubernetes' own schemas, and of one mind with one another and with the program.

The operator's resource has no schema at hand offline: its fields are held against those that this test knows.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions

from leia_beam.command_line import make_parser
from leia_beam.configuration import parse
from tests.engines import ROOT

yaml = pytest.importorskip("yaml", reason="PyYAML is needed to read the manifests")
FOLDER = ROOT / "deploy" / "flink"
SPEC_FIELDS = {
    "image",
    "flinkVersion",
    "mode",
    "serviceAccount",
    "flinkConfiguration",
    "podTemplate",
    "jobManager",
    "taskManager",
}


def manifest(name: str) -> dict[str, Any]:
    """One of the files."""
    content: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return content


def pods() -> dict[str, dict[str, Any]]:
    """The pods of all manifests, as pods."""
    spec = manifest("cluster.yaml")["spec"]
    task_manager = dict(spec["taskManager"]["podTemplate"]["spec"])
    # The operator merges the general template into the task manager's.
    task_manager["volumes"] = [*task_manager["volumes"], *spec["podTemplate"]["spec"]["volumes"]]
    return {
        "flink": spec["podTemplate"]["spec"],
        "task manager": task_manager,
        "launcher": manifest("build.yaml")["spec"]["template"]["spec"],
    }


def container(pod: str, name: str) -> dict[str, Any]:
    """A container by name."""
    found: dict[str, Any] = next(entry for entry in pods()[pod]["containers"] if entry["name"] == name)
    return found


def test_kubernetes_takes_them() -> None:
    """By the schemas of Kubernetes itself; the operator's pod templates as pods, with the image that it adds."""
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate has Kubernetes' schemas")
    for name in ("storage.yaml", "build.yaml"):
        validate.validate(manifest(name), "1.31", strict=True)
    for name, spec in pods().items():
        containers = [{"image": "flink", **entry} for entry in spec["containers"]]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {**spec, "containers": containers},
        }
        validate.validate(pod, "1.31", strict=True)
    wrong = manifest("build.yaml")
    wrong["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, "1.31", strict=True)


def test_the_cluster_is_what_the_operator_knows() -> None:
    """Group, kind and fields; values of its configuration are texts; a fixed number of task managers."""
    cluster = manifest("cluster.yaml")
    assert (cluster["apiVersion"], cluster["kind"]) == ("flink.apache.org/v1beta1", "FlinkDeployment")
    spec = cluster["spec"]
    assert set(spec) == SPEC_FIELDS and spec["mode"] == "standalone"
    assert set(spec["taskManager"]) == {"replicas", "resource", "podTemplate"}
    assert all(isinstance(value, str) for value in spec["flinkConfiguration"].values())


def test_one_flink_version_everywhere() -> None:
    """The image, the operator's version, the job server's jar; one that Beam has a job server for."""
    spec = manifest("cluster.yaml")["spec"]
    version = spec["flinkVersion"].removeprefix("v").replace("_", ".")
    assert version in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    assert spec["image"].startswith(f"flink:{version}-")
    dockerfile = (FOLDER / "Dockerfile").read_text()
    beam = re.search(r"^apache-beam==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert beam is not None
    assert f"beam-runners-flink-{version}-job-server-{beam[1]}.jar" in dockerfile


def test_the_launcher_says_what_the_program_takes_and_the_cluster_has() -> None:
    """Its arguments parse; address and worker pool are those of the cluster; all see the same folder by the same path."""
    options = parse(make_parser(), container("launcher", "launcher")["args"])
    cluster = manifest("cluster.yaml")
    assert options.flink_master == f"{cluster['metadata']['name']}-rest:8081"
    pool = container("task manager", "worker-pool")
    port = pool["ports"][0]["containerPort"]
    assert options.flink_worker_pool == f"localhost:{port}"
    assert f"--service_port={port}" in pool["args"] and "--container_executable=leia-beam-worker" in pool["args"]
    assert pool["image"] == container("launcher", "launcher")["image"]
    claim = manifest("storage.yaml")["metadata"]["name"]
    for pod in pods().values():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim
        for entry in pod["containers"]:
            mounts = {mount["name"]: mount["mountPath"] for mount in entry["volumeMounts"]}
            assert mounts["data"] == "/data"
    for path in (options.output, options.tokenizer, *options.pages, *options.wikidata):
        assert path.startswith("/data/")


def test_the_image_has_no_torch() -> None:
    """What workers install is the base package and the object stores."""
    dockerfile = (FOLDER / "Dockerfile").read_text()
    assert "'/src[gcp,aws]'" in dockerfile and "torch" not in dockerfile.replace("without torch", "")
