"""worker: what a runner provides for a worker is put where Beam's harness looks for it."""

from __future__ import annotations

import json
import tomllib
from concurrent import futures

import grpc
import pytest
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
from google.protobuf import json_format

from pipelines.worker import main, provision, set_environment
from tests.engines import ROOT

OPTIONS = {"beam:option:parallelism:v1": "2"}


class _Provision(beam_provision_api_pb2_grpc.ProvisionServiceServicer):
    """Answers as a runner does, and keeps who asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []

    def GetProvisionInfo(
        self, request: object, context: grpc.ServicerContext
    ) -> beam_provision_api_pb2.GetProvisionInfoResponse:
        self.asked.append(dict(context.invocation_metadata()))
        info = beam_provision_api_pb2.ProvisionInfo(runner_capabilities=["a", "b"])
        info.control_endpoint.url = "localhost:1"
        info.logging_endpoint.url = "localhost:2"
        json_format.ParseDict(OPTIONS, info.pipeline_options)
        return beam_provision_api_pb2.GetProvisionInfoResponse(info=info)


def test_a_worker_asks_by_its_name_and_takes_what_it_is_given() -> None:
    """Options, capabilities and addresses; an address on the command line comes first."""
    service = _Provision()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    info = provision(f"127.0.0.1:{port}", "1-2")
    server.stop(None)
    assert service.asked[0]["worker_id"] == "1-2"
    environment: dict[str, str] = {}
    set_environment(environment, "1-2", info, {"logging_endpoint": "localhost:9", "control_endpoint": None})
    assert json.loads(environment.pop("PIPELINE_OPTIONS")) == OPTIONS
    assert environment == {
        "WORKER_ID": "1-2",
        "RUNNER_CAPABILITIES": "a b",
        "CONTROL_API_SERVICE_DESCRIPTOR": 'url: "localhost:1"\n',
        "LOGGING_API_SERVICE_DESCRIPTOR": 'url: "localhost:9"\n',
    }


def test_a_provision_service_that_is_not_there_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 5, not a traceback in a task manager's log."""
    monkeypatch.setattr("pipelines.worker.PROVISION_TIMEOUT_S", 0.5)
    assert main(["--id=1-1", "--provision_endpoint=127.0.0.1:9"]) == 5
    assert "127.0.0.1:9: gives no settings for worker 1-1" in capsys.readouterr().err


def test_the_command_is_installed_with_the_package() -> None:
    """`leia-beam-worker`, which a task manager finds on its path."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["leia-beam-worker"] == "pipelines.worker:main"
