"""Emulators of two object stores on loopback, behind a proxy that counts bytes and cuts connections."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import socketserver
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from leia_beam import sources

BUCKET = "dumps"
_PIECE_BYTES = 1 << 16


class Proxy:
    """Passes connections on to a port of this machine.

    `sent` and `received` count bytes to and from the store. `cut_received_after` and `cut_sent_after` are bytes after
    which the next `cuts` connections are cut, each in the middle of what it carries.
    """

    def __init__(self, target_port: int):
        self.sent = self.received = self.cuts_done = 0
        self.cuts = 0
        self.cut_received_after: int | None = None
        self.cut_sent_after: int | None = None
        self._target_port = target_port
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """Count from nothing, cut nothing."""
        self.sent = self.received = self.cuts = self.cuts_done = 0
        self.cut_received_after = self.cut_sent_after = None

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                store = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._carry, args=(client, store), daemon=True).start()

    def _carry(self, client: socket.socket, store: socket.socket) -> None:
        """Both directions of a connection; closed when both have ended, so that neither reads another one's socket."""
        with client, store:
            answers = threading.Thread(target=self._pump, args=(store, client, True), daemon=True)
            answers.start()
            self._pump(client, store, False)
            answers.join()

    def _pump(self, source: socket.socket, target: socket.socket, is_received: bool) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                carried += len(piece)
                with self._lock:
                    if is_received:
                        self.received += len(piece)
                    else:
                        self.sent += len(piece)
                    limit = self.cut_received_after if is_received else self.cut_sent_after
                    is_cut = limit is not None and self.cuts > 0 and carried > limit
                    if is_cut:
                        self.cuts -= 1
                        self.cuts_done += 1
                if is_cut:
                    target.sendall(piece[: len(piece) // 2])
                    break
                target.sendall(piece)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass
class Store:
    """A store with one empty bucket. `options` are what Beam needs to reach it."""

    scheme: str
    proxy: Proxy
    options: list[str]
    client: Any
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> str:
        """The bucket's path."""
        return f"{self.scheme}://{BUCKET}"

    @property
    def storage(self) -> sources.BeamStorage:
        """A storage as a build makes it."""
        return sources.BeamStorage(sources.storage_options(self.options))

    def put(self, key: str, content: bytes) -> None:
        """Put an object there, past the code under test."""
        if self.scheme == "gs":
            self.client.bucket(BUCKET).blob(key).upload_from_string(content, checksum=None)
        else:
            self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Key → content of all objects, read past the code under test."""
        if self.scheme == "gs":
            return {blob.name: blob.download_as_bytes() for blob in self.client.list_blobs(BUCKET, prefix=prefix)}
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return {key: self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


@contextlib.contextmanager
def gcs_emulator() -> Iterator[Store]:
    """Google Cloud Storage's."""
    server_module = pytest.importorskip("gcp_storage_emulator.server", reason="pip install gcp-storage-emulator")
    storage = pytest.importorskip("google.cloud.storage", reason="pip install 'apache-beam[gcp]'")
    server = server_module.create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    port = (
        server._api._httpd.server_port
    )  # the one that it was given: one that is looked for may be taken before it is used
    proxy = Proxy(port)
    before, handle_error = dict(os.environ), socketserver.BaseServer.handle_error
    socketserver.BaseServer.handle_error = lambda *_: None  # type: ignore[method-assign]  # it prints each cut
    environment = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{proxy.port}", "GOOGLE_CLOUD_PROJECT": "demo"}
    try:
        os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{port}"
        client = storage.Client.create_anonymous_client()
        os.environ.update(environment)
        sources._files_of.cache_clear()
        yield Store("gs", proxy, ["--no_auth"], client, environment)
    finally:
        os.environ.clear()
        os.environ.update(before)
        socketserver.BaseServer.handle_error = handle_error  # type: ignore[method-assign]
        sources._files_of.cache_clear()
        proxy.close()
        server.stop()


def _whole_bodies_alone(application: Any) -> Any:
    """As S3 does, refuse a body that ends before its length, or its last chunk, came: moto takes it for an object."""

    def checked(environment: dict[str, Any], start_response: Any) -> Any:
        length = environment.get("CONTENT_LENGTH")
        if environment["REQUEST_METHOD"] in ("PUT", "POST") and length:
            body = environment["wsgi.input"].read(int(length))
            is_whole = len(body) == int(length)
            if "STREAMING-" in environment.get("HTTP_X_AMZ_CONTENT_SHA256", ""):
                is_whole = is_whole and b"\r\n0\r\n" in body[-1000:]
            if not is_whole:
                start_response("400 Bad Request", [("Content-Type", "application/xml")])
                return [b"<Error><Code>IncompleteBody</Code><Message>body ended early</Message></Error>"]
            environment["wsgi.input"] = io.BytesIO(body)
        return application(environment, start_response)

    return checked


@contextlib.contextmanager
def s3_emulator() -> Iterator[Store]:
    """S3's."""
    moto = pytest.importorskip("moto.moto_server.werkzeug_app", reason="pip install 'moto[server,s3]'")
    boto3 = pytest.importorskip("boto3", reason="pip install 'apache-beam[aws]'")
    serving = pytest.importorskip("werkzeug.serving", reason="pip install 'moto[server,s3]'")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = moto.DomainDispatcherApplication(moto.create_backend_app)
    server = serving.make_server("127.0.0.1", 0, _whole_bodies_alone(application), threaded=True)
    port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proxy = Proxy(port)
    keys = {"aws_access_key_id": "user", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    client = boto3.session.Session().client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys)
    urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/reset", data=b"").close()  # it keeps all for the process
    client.create_bucket(Bucket=BUCKET)
    options = [
        f"--s3_endpoint_url=http://127.0.0.1:{proxy.port}",
        "--s3_region_name=us-east-1",
        "--s3_access_key_id=user",
        "--s3_secret_access_key=secret",
    ]
    try:
        sources._files_of.cache_clear()
        yield Store("s3", proxy, options, client)
    finally:
        sources._files_of.cache_clear()
        proxy.close()
        server.shutdown()
        client.close()


EMULATORS = {"gs": gcs_emulator, "s3": s3_emulator}
