"""The command `leia-beam-worker`: from what a runner tells a worker to a Python process that does the runner's work.

It does what Beam's `boot` does in Beam's containers, for machines without any: Flink's PROCESS environment starts it with
an id and the address of a provision service, which knows the rest; a worker pool that has it as `--container_executable`
adds the other addresses. Nothing is downloaded or installed: this package and its requirements are where it is started.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import grpc
import pyarrow as pa
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc, endpoints_pb2
from apache_beam.runners.worker import sdk_worker_main
from google.protobuf import json_format, text_format

PROVISION_TIMEOUT_S = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask for what is to be done and do it until the runner has no more. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="leia-beam-worker",
        description="A worker of a runner that starts its workers as processes; it is not started by hand.",
    )
    parser.add_argument("--id", required=True, help="the worker's name")
    parser.add_argument("--provision_endpoint", required=True, metavar="HOST:PORT", help="knows the worker's settings")
    for name in ("logging", "control", "artifact", "status"):
        parser.add_argument(f"--{name}_endpoint", metavar="HOST:PORT", help="in place of the one provided")
    given = vars(parser.parse_args(arguments))
    try:
        provided = provision(given["provision_endpoint"], given["id"])
    except grpc.RpcError as error:
        reason = error.details() if isinstance(error, grpc.Call) else error
        print(
            f"leia-beam-worker: error: {given['provision_endpoint']}: gives no settings for worker {given['id']} ({reason})",
            file=sys.stderr,
        )
        return 5
    set_environment(os.environ, given["id"], provided, given)
    pa.set_memory_pool(pa.system_memory_pool())  # gives back what a unit held, which the default pool keeps
    sdk_worker_main.main([])
    return 0


def provision(endpoint: str, worker_id: str) -> beam_provision_api_pb2.ProvisionInfo:
    """What the runner provides for a worker.

    Raises: grpc.RpcError if nothing answers within a minute.
    """
    with grpc.insecure_channel(endpoint) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        answer = stub.GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(),
            metadata=[("worker_id", worker_id)],
            timeout=PROVISION_TIMEOUT_S,
            wait_for_ready=True,
        )
    info: beam_provision_api_pb2.ProvisionInfo = answer.info
    return info


def set_environment(
    environment: MutableMapping[str, str],
    worker_id: str,
    provided: beam_provision_api_pb2.ProvisionInfo,
    given: Mapping[str, Any],
) -> None:
    """Put a worker's settings where Beam's harness looks for them; addresses that were given come first."""
    environment["WORKER_ID"] = worker_id
    environment["PIPELINE_OPTIONS"] = json.dumps(json_format.MessageToDict(provided.pipeline_options))
    environment["RUNNER_CAPABILITIES"] = " ".join(provided.runner_capabilities)
    for name in ("logging", "control", "status"):
        url = given.get(f"{name}_endpoint") or getattr(provided, f"{name}_endpoint").url
        if url:
            descriptor = endpoints_pb2.ApiServiceDescriptor(url=url)
            environment[f"{name.upper()}_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(descriptor)


if __name__ == "__main__":
    sys.exit(main())
