"""Google Cloud Storage and S3 behind one face: state, byte ranges, lists, one upload, removal.

Each store is made from a client of its vendor's package, whose own tries are turned off: `ranged_files.tried` does it
for both in one way. An upload is one request, or one that is completed at its end, so that an object is whole or not
there; its checksum is compared by the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol

from leia_beam.ranged_files import CHANGED, NO_BUCKET, REFUSED, StoreFault
from leia_beam.storage import FileState

UPLOAD_PART_BYTES = 64 << 20
_PASSING_CODES = frozenset({408, 429, 500, 502, 503, 504})
_REFUSED_CODES = frozenset({401, 403})
_GCS_TIMEOUT_S = (10, 120)
_DELETED_AT_ONCE = 1000


class ObjectStore(Protocol):
    """One account's view of a store; keys are without the bucket. Every method may raise StoreFault."""

    def state(self, bucket: str, key: str) -> FileState | None:
        """Size and version of an object, or None."""

    def whole(self, bucket: str, key: str) -> bytes | None:
        """All of a small object, or None."""

    def fetch(self, bucket: str, key: str, start: int, end: int, version: str) -> bytes:
        """The bytes [start, end) of an object, of this version where one is given."""

    def entries(self, bucket: str, prefix: str, *, deep: bool) -> Iterator[tuple[str, int]]:
        """(key, size) of objects by prefix; without `deep`, what lies behind a further '/' once, as 'key/' of size 0."""

    def upload(self, bucket: str, key: str, source: BinaryIO, size_bytes: int) -> None:
        """Put what a local file holds under a key."""

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """Remove objects; one that is not there is no fault."""


def split_path(path: str) -> tuple[str, str]:
    """(bucket, key) of a path.

    >>> split_path("gs://dumps/2026/x.bz2")
    ('dumps', '2026/x.bz2')
    """
    bucket, _, key = path.partition("://")[2].partition("/")
    return bucket, key


def _fault_of_code(code: int | None, reason: str) -> StoreFault:
    if code in _REFUSED_CODES:
        return StoreFault(f"{code}: {reason}", kind=REFUSED)
    if code == 412:
        return StoreFault(reason, kind=CHANGED)
    return StoreFault(f"{code}: {reason}" if code else reason, passing=code in _PASSING_CODES)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


class GcsStore:
    """`client` is a google.cloud.storage.Client."""

    def __init__(self, client: Any):
        self._client = client
        self._seen_buckets: set[str] = set()

    def state(self, bucket: str, key: str) -> FileState | None:
        from google.api_core.exceptions import NotFound

        with _gcs_faults():
            blob = self._blob(bucket, key)
            try:
                blob.reload(retry=None, timeout=_GCS_TIMEOUT_S)
            except NotFound:
                self._find_bucket(bucket)
                return None
            return FileState(int(blob.size), f"generation {blob.generation}")

    def _find_bucket(self, bucket: str) -> None:
        """An object that is not there is one thing, a bucket that is not there another."""
        if bucket not in self._seen_buckets:
            list(self._client.list_blobs(bucket, max_results=1, retry=None, timeout=_GCS_TIMEOUT_S))
            self._seen_buckets.add(bucket)

    def whole(self, bucket: str, key: str) -> bytes | None:
        # In two requests: an answer that is cut in its headers would look like an empty object.
        state = self.state(bucket, key)
        if state is None or not state.size_bytes:
            return None if state is None else b""
        try:
            found = self.fetch(bucket, key, 0, state.size_bytes, state.version)
        except StoreFault as fault:
            raise StoreFault(fault.reason, passing=fault.passing or fault.kind == CHANGED, kind=fault.kind) from fault
        if len(found) != state.size_bytes:
            raise StoreFault(f"{len(found):,} bytes came of {state.size_bytes:,}", passing=True)
        return found

    def fetch(self, bucket: str, key: str, start: int, end: int, version: str) -> bytes:
        generation = version.partition("generation ")[2]
        with _gcs_faults(missing=""):
            found: bytes = self._blob(bucket, key).download_as_bytes(
                start=start,
                end=end - 1,
                raw_download=True,
                if_generation_match=int(generation) if generation else None,
                checksum=None,  # the store has one of the whole object alone; the dumps and tables have their own
                single_shot_download=True,
                retry=None,
                timeout=_GCS_TIMEOUT_S,
            )
            return found

    def entries(self, bucket: str, prefix: str, *, deep: bool) -> Iterator[tuple[str, int]]:
        with _gcs_faults():
            pages = self._client.list_blobs(
                bucket, prefix=prefix, delimiter=None if deep else "/", retry=None, timeout=_GCS_TIMEOUT_S
            )
            found = [(blob.name, int(blob.size)) for blob in pages]
            found += [(folder, 0) for folder in pages.prefixes]
        yield from sorted(found)

    def upload(self, bucket: str, key: str, source: BinaryIO, size_bytes: int) -> None:
        with _gcs_faults():
            self._blob(bucket, key).upload_from_file(
                source,
                rewind=True,
                size=size_bytes,
                content_type="application/octet-stream",
                checksum="crc32c",
                retry=None,
                timeout=_GCS_TIMEOUT_S,
            )

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        from google.api_core.exceptions import NotFound

        for key in keys:
            with _gcs_faults():
                try:
                    self._blob(bucket, key).delete(retry=None, timeout=_GCS_TIMEOUT_S)
                except NotFound:
                    continue

    def _blob(self, bucket: str, key: str) -> Any:
        return self._client.bucket(bucket).blob(key)


@contextmanager
def _gcs_faults(missing: str = NO_BUCKET) -> Iterator[None]:
    """What Google's packages raise as a StoreFault; `missing` is what 'not found' means there."""
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from urllib3.exceptions import HTTPError

    try:
        yield
    except GoogleAPICallError as error:
        if error.code == 404:
            raise StoreFault(f"404: {_first_line(error)}", kind=missing) from error
        raise _fault_of_code(error.code, error.message or _first_line(error)) from error
    except InvalidResponse as error:
        raise _fault_of_code(getattr(error.response, "status_code", None), _first_line(error)) from error
    except (TransportError, DataCorruption, RetryError, HTTPError) as error:
        raise StoreFault(_first_line(error), passing=True) from error
    except GoogleAuthError as error:
        raise StoreFault(_first_line(error), kind=REFUSED) from error
    except OSError as error:  # the connection: requests' errors are OSErrors
        raise StoreFault(_first_line(error), passing=True) from error
    except (
        AttributeError,
        TypeError,
    ) as error:  # an answer cut in its headers is text, which is taken for a dictionary
        raise StoreFault(f"an answer that was cut: {_first_line(error)}", passing=True) from error


class S3Store:
    """`client` is boto3's client of S3, or of a store that speaks its language."""

    def __init__(self, client: Any):
        self._client = client
        self._seen_buckets: set[str] = set()

    def state(self, bucket: str, key: str) -> FileState | None:
        from botocore.exceptions import ClientError

        with _s3_faults():
            try:
                found = self._client.head_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if _s3_code(error)[0] != 404:
                    raise
                self._find_bucket(bucket)
                return None
            return FileState(int(found["ContentLength"]), f"etag {found['ETag'].strip(chr(34))}")

    def _find_bucket(self, bucket: str) -> None:
        """An object that is not there is one thing, a bucket that is not there another."""
        if bucket not in self._seen_buckets:
            self._client.list_objects_v2(Bucket=bucket, MaxKeys=1)
            self._seen_buckets.add(bucket)

    def whole(self, bucket: str, key: str) -> bytes | None:
        from botocore.exceptions import ClientError

        with _s3_faults():
            try:
                answer = self._client.get_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if _s3_code(error) != (404, "NoSuchKey"):
                    raise
                return None
            with answer["Body"] as body:
                found: bytes = body.read()
            if len(found) != int(answer["ContentLength"]):
                raise StoreFault(f"{len(found):,} bytes came of {answer['ContentLength']:,}", passing=True)
            return found

    def fetch(self, bucket: str, key: str, start: int, end: int, version: str) -> bytes:
        etag = version.partition("etag ")[2]
        pinned = {"IfMatch": etag} if etag else {}
        with _s3_faults():
            answer = self._client.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}", **pinned)
            with answer["Body"] as body:
                found: bytes = body.read()
            return found

    def entries(self, bucket: str, prefix: str, *, deep: bool) -> Iterator[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        with _s3_faults():
            options = {} if deep else {"Delimiter": "/"}
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **options):
                if "KeyCount" not in page:
                    raise StoreFault("an answer that was cut: it has no number of keys", passing=True)
                found += [(entry["Key"], int(entry["Size"])) for entry in page.get("Contents", ())]
                found += [(entry["Prefix"], 0) for entry in page.get("CommonPrefixes", ())]
        yield from sorted(found)

    def upload(self, bucket: str, key: str, source: BinaryIO, size_bytes: int) -> None:
        from boto3.s3.transfer import TransferConfig

        parts = TransferConfig(
            multipart_threshold=UPLOAD_PART_BYTES, multipart_chunksize=UPLOAD_PART_BYTES, use_threads=False
        )
        source.seek(0)
        with _s3_faults():
            if size_bytes <= UPLOAD_PART_BYTES:
                self._client.put_object(Bucket=bucket, Key=key, Body=source, ContentLength=size_bytes)
            else:
                self._client.upload_fileobj(source, bucket, key, Config=parts)

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        for first in range(0, len(keys), _DELETED_AT_ONCE):
            objects = [{"Key": key} for key in keys[first : first + _DELETED_AT_ONCE]]
            with _s3_faults():
                answer = self._client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
            for failed in answer.get("Errors", ()):
                reason = f"{failed.get('Key')}: {failed.get('Message') or failed.get('Code')}"
                raise StoreFault(reason, kind=REFUSED if failed.get("Code") == "AccessDenied" else "")


def _s3_code(error: Any) -> tuple[int | None, str]:
    """(HTTP status, code of S3) of boto3's ClientError."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status, str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _s3_faults() -> Iterator[None]:
    """What boto3 and below raises as a StoreFault."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
    from botocore.exceptions import IncompleteReadError as IncompleteRead
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        status, code = _s3_code(error)
        if code == "NoSuchBucket":
            raise StoreFault(_first_line(error), kind=NO_BUCKET) from error
        raise _fault_of_code(status, _first_line(error)) from error
    except (HTTPClientError, IncompleteRead, HTTPError) as error:
        raise StoreFault(_first_line(error), passing=True) from error
    except NoCredentialsError as error:
        raise StoreFault(_first_line(error), kind=REFUSED) from error
    except (BotoCoreError, Boto3Error) as error:
        raise StoreFault(_first_line(error)) from error
    except OSError as error:
        raise StoreFault(_first_line(error), passing=True) from error
    except KeyError as error:
        raise StoreFault(f"an answer that was cut: it has no {_first_line(error)}", passing=True) from error
