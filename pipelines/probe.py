"""From an output folder to what the workers of a cluster see of it, by one tiny job before the first stage.

A folder that only the launcher has is the commonest fault of a first run on a cluster: every unit would write to its
worker's own disk and end well, and no commit record would ever be seen. A worker also says which versions it has.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import apache_beam as beam
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.metrics.metric import MetricResults

from leia_beam.errors import LeiaError, MissingResource
from leia_beam.plans import current_versions
from leia_beam.storage import Storage

VERSIONS = ("leia-lm", "apache-beam", "pyarrow")
_NAMESPACE = "leia-probe"
SEEN, UNSEEN, OTHER_VERSION = "seen", "unseen", "other version"


class _Look(beam.DoFn):
    """Looks for the launcher's mark, and counts what it finds: an exception would be tried again by some clusters."""

    def __init__(self, storage: Storage, path: str, token: bytes, versions: Mapping[str, str]):
        self._storage = storage
        self._path = path
        self._token = token
        self._versions = dict(versions)

    def process(self, number: int) -> None:
        try:
            seen = self._storage.read(self._path) == self._token
        except LeiaError:
            seen = False
        Metrics.counter(_NAMESPACE, SEEN if seen else UNSEEN).inc()
        for name, version in current_versions(VERSIONS).items():
            if version != self._versions[name]:
                Metrics.counter(_NAMESPACE, f"{OTHER_VERSION}: {name} {version}").inc()


@contextmanager
def mark(storage: Storage, output: str) -> Iterator[tuple[str, bytes]]:
    """A file in the output folder that only this run knows the content of: (path, content). It is removed at the end."""
    token = uuid.uuid4().hex
    path = f"{output.rstrip('/')}/_run/probe-{token[:8]}"
    storage.write(path, token.encode())
    try:
        yield path, token.encode()
    finally:
        storage.remove(path)


def probe_graph(pipeline: beam.Pipeline, storage: Storage, path: str, token: bytes, looks: int) -> None:
    """Create(numbers) | Reshuffle | ParDo(look for the mark)."""
    look = _Look(storage, path, token, current_versions(VERSIONS))
    _ = pipeline | "Looks" >> beam.Create(range(looks)) | "Spread" >> beam.Reshuffle() | "Look" >> beam.ParDo(look)


def check_probe(metrics: MetricResults, where: str, output: str) -> None:
    """What the workers found.

    Raises: MissingResource if one of them does not see the folder or has other versions.
    """
    counters = metrics.query(MetricsFilter().with_namespace(_NAMESPACE))["counters"]
    counts = {result.key.metric.name: result.result or 0 for result in counters}
    others = sorted(name.removeprefix(f"{OTHER_VERSION}: ") for name in counts if name.startswith(OTHER_VERSION))
    if others:
        own = current_versions(VERSIONS)
        here = ", ".join(f"{name} {own[name]}" for name in sorted({text.split()[0] for text in others}))
        raise MissingResource(
            f"{where}: its workers have {', '.join(others)}, the launcher has {here}; install the same versions on all"
        )
    if counts.get(UNSEEN) or not counts.get(SEEN):
        raise MissingResource(
            f"{where}: its workers do not see --output {output}; give a folder that all machines mount, or an object store"
        )
