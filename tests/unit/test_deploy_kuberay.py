"""The files for containers and Kubernetes fit the code, as far as that can be told without either."""

import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from deployments.keys import check_exposure
from tts_actors.cli.configured import load_args
from tts_actors.config import AppArgs
from tts_actors.stores.fitness import check_stores

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Serve's own use of pydantic
    from ray.serve.schema import ServeDeploySchema

    from deployments.app import EngineArgs
    from deployments.environment import RAY_DEFAULTS, missing

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "deploy" / "kuberay" / "rayservice.yaml"
TEXT = KUBERAY.read_text()
SERVICE, POLICY = yaml.safe_load_all(TEXT)
SECRET = set(re.findall(r"--from-literal=([A-Z_]+)=", TEXT))

_POD = {
    "type": "object",
    "additionalProperties": False,
    "required": ["metadata", "spec"],
    "properties": {
        "metadata": {"properties": {"labels": {"const": {"app": "tts-actors"}}}, "required": ["labels"]},
        "spec": {
            "required": ["containers", "securityContext"],
            "properties": {
                "securityContext": {"properties": {"runAsNonRoot": {"const": True}}, "required": ["runAsNonRoot"]},
                "containers": {
                    "minItems": 1,
                    "maxItems": 1,
                    "items": {
                        "required": ["name", "image", "envFrom", "resources", "ports"],
                        "not": {"required": ["env"]},
                        "properties": {
                            "envFrom": {"const": [{"secretRef": {"name": "tts-actors"}}]},
                            "resources": {"required": ["requests", "limits"]},
                        },
                    },
                },
            },
        },
    },
}
_GROUP = {
    "required": ["rayStartParams", "template"],
    "properties": {"rayStartParams": {"additionalProperties": {"type": "string"}}, "template": _POD},
}
STRUCTURE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayService"},
        "metadata": {"required": ["name"], "properties": {"name": {"pattern": "^[a-z][a-z0-9-]{0,52}$"}}},
        "spec": {
            "additionalProperties": False,
            "required": ["serveConfigV2", "rayClusterConfig", "excludeHeadPodFromServeSvc"],
            "properties": {
                "excludeHeadPodFromServeSvc": {"const": True},
                "rayClusterDeletionDelaySeconds": {"type": "integer", "minimum": 0},
                "serveConfigV2": {"type": "string"},
                "rayClusterConfig": {
                    "additionalProperties": False,
                    "required": ["authOptions", "gcsFaultToleranceOptions"],
                    "properties": {
                        "rayVersion": {"type": "string"},
                        "authOptions": {"const": {"mode": "token"}},
                        "gcsFaultToleranceOptions": {"required": ["redisAddress", "redisPassword"]},
                        "headGroupSpec": _GROUP,
                        "workerGroupSpecs": {"type": "array", "minItems": 1, "items": _GROUP},
                    },
                },
            },
        },
    },
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The pods' environment: what the file says the secret has to hold."""
    values = dict.fromkeys(SECRET, "x") | {
        "TTS_STORE_URL": "postgresql+asyncpg://user:hunter2@host/name",
        "TTS_CLIP_URL": "s3://bucket/prefix",
        "TTS_API_KEYS": "alice:secret",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


def _applications() -> list[dict[str, Any]]:
    return list(yaml.safe_load(SERVICE["spec"]["serveConfigV2"])["applications"])


def test_the_ray_service_has_the_shape_that_is_meant() -> None:
    jsonschema.validate(SERVICE, STRUCTURE)
    cluster = SERVICE["spec"]["rayClusterConfig"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "the head gives no CPUs away"
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"ray[serve]=={cluster['rayVersion']}" in dependencies


def test_serve_takes_the_embedded_configuration() -> None:
    document = ServeDeploySchema.model_validate(yaml.safe_load(SERVICE["spec"]["serveConfigV2"]))
    assert [app.import_path for app in document.applications] == [
        "deployments.app:build_app",
        "deployments.app:build_engine",
    ]


def test_the_service_takes_its_arguments_with_the_stores_from_the_secret(environment: dict[str, str]) -> None:
    service, engine = _applications()
    args = AppArgs.model_validate(service["args"])
    assert args.store_url == environment["TTS_STORE_URL"]
    check_stores(args.store_url, args.clip_url, nodes=4)
    check_exposure(args.auth, "0.0.0.0", environment)  # noqa: S104 - as in the file: with keys that is allowed
    assert EngineArgs.model_validate(engine["args"]).key("0.0.0.0")  # noqa: S104
    assert load_args(KUBERAY, Path("data"), 8000) == args, "the doctor reads the same file"
    assert {backend.api_key_env for backend in args.backends} <= SECRET


def test_a_secret_that_is_missing_is_named_and_one_that_is_there_is_never_shown(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValidationError) as wrong:
        AppArgs.model_validate(_applications()[0]["args"] | {"limits": {"max_chunks": 0}, "backends": []})
    assert "hunter2" not in str(wrong.value)
    monkeypatch.delenv("TTS_STORE_URL")
    with pytest.raises(ValidationError, match="TTS_STORE_URL is not set"):
        AppArgs.model_validate(_applications()[0]["args"])


def test_the_replicas_fit_on_the_workers() -> None:
    wanted = sum(
        deployment["num_replicas"] * deployment["ray_actor_options"]["num_cpus"]
        for application in _applications()
        for deployment in application["deployments"]
    )
    (workers,) = SERVICE["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    cpus = int(workers["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert wanted + cpus <= cpus * workers["replicas"], "one node may be away"


def test_an_update_finds_a_node_for_its_new_replicas() -> None:
    # Serve counts old and new replicas together: without a node for one more a new one waits, and no old one stops.
    (workers,) = SERVICE["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    for deployment in (deployment for application in _applications() for deployment in application["deployments"]):
        if "max_replicas_per_node" in deployment and deployment["max_surge_percent"]:
            assert workers["minReplicas"] * deployment["max_replicas_per_node"] > deployment["num_replicas"]


def test_everybody_may_reach_the_http_port_and_no_other() -> None:
    assert POLICY["spec"]["podSelector"] == {"matchLabels": {"app": "tts-actors"}}
    anybody = [rule for rule in POLICY["spec"]["ingress"] if "from" not in rule]
    port = yaml.safe_load(SERVICE["spec"]["serveConfigV2"])["http_options"]["port"]
    assert [rule["ports"] for rule in anybody] == [[{"port": port, "protocol": "TCP"}]]


def test_the_image_is_built_from_what_is_there_and_starts_what_make_serve_starts() -> None:
    # One instruction a line, its continuations joined.
    lines = re.sub(r"\\\n\s*", " ", (ROOT / "deploy" / "Containerfile").read_text()).splitlines()
    steps = [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]
    copied = [source for step, rest in steps if step == "COPY" for source in rest.split()[:-1]]
    assert copied
    assert all((ROOT / source).exists() for source in copied)
    set_there = dict(pair.split("=", 1) for step, rest in steps if step == "ENV" for pair in rest.split())
    assert set_there.items() >= RAY_DEFAULTS.items()
    base = next(rest for step, rest in steps if step == "FROM")
    assert re.fullmatch(r"docker\.io/library/python:3\.1[123]-slim-\w+", base)
    assert [rest for step, rest in steps if step == "USER"][-1] != "root"
    assert '"deployments.runner"' in next(rest for step, rest in steps if step == "CMD")


def test_what_a_node_lacks_is_named_and_can_be_exported() -> None:
    exports = subprocess.run(
        [sys.executable, "-m", "deployments.environment"], capture_output=True, text=True, check=True
    )
    exported = dict(line.removeprefix("export ").split("=", 1) for line in exports.stdout.splitlines())
    assert exported == RAY_DEFAULTS
    assert missing(exported) == []
    del exported["OMP_NUM_THREADS"]
    assert missing(exported) == ["OMP_NUM_THREADS"]
