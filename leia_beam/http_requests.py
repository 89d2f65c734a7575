"""From an address to what a server answers: redirects, waiting and refusals dealt with, one clear error for each.

`requests` speaks HTTP. Ours are the rules: who we are is said, a server's Retry-After is obeyed up to a limit, a redirect from
HTTPS to HTTP is refused, and so is one to another host where what comes is believed (lists of sums).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urljoin, urlsplit

import requests

from leia_beam.errors import DamagedInput, LeiaError, MissingResource, UsageError

CONNECT_S, READ_S = 20, 120
ATTEMPTS = 6
"""Without any progress between them."""
_LONGEST_BACKOFF_S = 60.0
_MOST_REDIRECTS = 8
_MOST_TEXT_BYTES = 64 << 20
_PIECE_BYTES = 256 << 10
_LEAST_WAIT_S = 1.0
"""Also where a server says that 0 s will do, or names a time that has passed."""
_BUSY, _PASSING, _NO_HEAD = (429, 503), (408, 500, 502, 504), (405, 501)


class NotFound(LeiaError):
    """A server has no such file (404, 410)."""

    exit_code = 2


class Stopped(Exception):
    """The download was told to stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What a server says of a file; `url` is where it was found in the end."""

    url: str
    size_bytes: int | None
    etag: str
    last_modified: str
    content_type: str


class Http:
    """Requests to servers of dumps, one at a time: each thread has its own. Told to stop, it raises Stopped."""

    def __init__(
        self,
        *,
        contact: str = "",
        max_wait_s: float = 900,
        warn: Callable[[str], None] = lambda line: None,
        stop: threading.Event | None = None,
        backoff_s: float = 1.0,
    ):
        self._session = requests.Session()
        self._session.headers.clear()
        self._session.headers.update(
            {"User-Agent": user_agent(contact), "Accept": "*/*", "Accept-Encoding": "identity"}
        )
        self._max_wait_s = max_wait_s
        self._warn = warn
        self._stop = stop or threading.Event()
        self._backoff_s = backoff_s

    def head(self, url: str) -> Head | None:
        """What a server says of a file without sending it; None where it has none.

        Raises: MissingResource, UsageError.
        """
        try:
            with self.answer(url, method="HEAD") as (response, head):
                response.close()
                return head
        except NotFound:
            return None

    def text(self, url: str) -> str:
        """A small text, such as a list of files or sums; by no other host than the one that was asked.

        Raises: NotFound; MissingResource, UsageError, DamagedInput.
        """
        for attempt in range(ATTEMPTS):
            try:
                with self.answer(url, may_move=False) as (response, head):
                    content = bytearray()
                    for piece in pieces(response):
                        content += piece
                        if len(content) > _MOST_TEXT_BYTES:
                            raise DamagedInput(
                                f"{url}: more than {_MOST_TEXT_BYTES:,} bytes, which no list of files has"
                            )
                    if head.size_bytes is not None and len(content) != head.size_bytes:
                        raise ConnectionError(f"{len(content):,} of {head.size_bytes:,} bytes came")
                    return content.decode("utf-8", "replace")
            except ConnectionError as error:
                self.wait_after(url, attempt, str(error))
        raise AssertionError("wait_after ends the attempts")

    @contextmanager
    def answer(
        self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, may_move: bool = True
    ) -> Iterator[tuple[requests.Response, Head]]:
        """A server's answer of 200, 206 or 416, after redirects and waits; its body is not read yet.

        Raises: NotFound for 404; UsageError for 401 and 403; MissingResource for any other, and where nobody answers.
        """
        response, found = self._ask(method, url, headers or {}, may_move)
        try:
            yield response, _head_of(response, found)
        finally:
            response.close()

    def wait_after(self, url: str, attempt: int, reason: str) -> None:
        """Wait before the next attempt.

        Raises: MissingResource where there were enough; Stopped.
        """
        if attempt + 1 >= ATTEMPTS:
            raise MissingResource(
                f"{url}: {reason}, {ATTEMPTS} times in a row; look at the network, then run the same command again: it "
                "goes on where it stopped"
            )
        seconds = min(_LONGEST_BACKOFF_S, self._backoff_s * 2**attempt)
        self._warn(f"{_short(url)}: {reason}; trying again in {seconds:.0f} s")
        self.sleep(seconds)

    def sleep(self, seconds: float) -> None:
        """Raises: Stopped, where that was told meanwhile."""
        if self._stop.wait(seconds):
            raise Stopped

    def _ask(self, method: str, url: str, headers: Mapping[str, str], may_move: bool) -> tuple[requests.Response, str]:
        at, redirects, attempt, waited_s = url, 0, 0, 0.0
        while True:
            if self._stop.is_set():
                raise Stopped
            try:
                response = self._session.request(
                    method, at, headers=headers, stream=True, allow_redirects=False, timeout=(CONNECT_S, READ_S)
                )
            except requests.exceptions.SSLError as error:
                raise MissingResource(f"{at}: its certificate is not accepted ({_reason(error)})") from error
            except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
                raise UsageError(f"{at}: no address that can be asked ({error})") from error
            except requests.exceptions.RequestException as error:
                self.wait_after(at, attempt, f"no answer ({_reason(error)})")
                attempt += 1
                continue
            status = response.status_code
            if status in (301, 302, 303, 307, 308):
                response.close()
                redirects += 1
                at = _redirected(url, at, response.headers.get("Location", ""), redirects, may_move)
                continue
            if status in (200, 206, 416):
                return response, at
            response.close()
            if method == "HEAD" and status in _NO_HEAD:
                method = "GET"  # whose body is not read
                continue
            if status in _BUSY:
                seconds = _retry_after_s(response.headers.get("Retry-After", ""))
                if seconds is not None:
                    seconds = max(seconds, _LEAST_WAIT_S)
                    waited_s += seconds
                    if waited_s > self._max_wait_s:
                        raise MissingResource(
                            f"{urlsplit(at).netloc}: busy ({status}), and asks to wait {seconds:,.0f} s; run the same "
                            f"command again then, or give --max-wait {waited_s:.0f}"
                        )
                    self._warn(f"{urlsplit(at).netloc} is busy ({status}); waiting {seconds:,.0f} s, as it asks")
                    self.sleep(seconds)
                    continue
            if status in (*_BUSY, *_PASSING):
                self.wait_after(at, attempt, f"the server answers {status}")
                attempt += 1
                continue
            raise _refusal(at, status)


def user_agent(contact: str) -> str:
    """Who asks: this project, and whom to turn to. Wikimedia refuses those who do not say.

    >>> user_agent("me@example.org").split(" ", 1)[1]
    '(LEIA corpus builder; contact: me@example.org)'
    """
    try:
        own = version("leia-lm")
    except PackageNotFoundError:
        own = "0"
    who = contact or "not given"
    return f"leia-beam/{own} (LEIA corpus builder; contact: {who})"


def check_contact(contact: str) -> str:
    """An address that can stand in a header.

    Raises: UsageError.
    """
    if contact and (not contact.isascii() or not contact.isprintable() or not ("@" in contact or "://" in contact)):
        raise UsageError(f"--contact {contact[:80]!r}: give an e-mail address or a page's address")
    return contact


def pieces(response: requests.Response) -> Iterator[bytes]:
    """The bytes of a body as they were sent.

    Raises: ConnectionError where they end early.
    """
    try:
        # read1: what has come is written at once, also from a slow server
        while piece := response.raw.read1(_PIECE_BYTES, decode_content=False):
            yield piece
    except Exception as error:
        from urllib3.exceptions import HTTPError

        if isinstance(error, (HTTPError, OSError)):
            raise ConnectionError(f"the connection was cut ({_reason(error)})") from error
        raise


def _head_of(response: requests.Response, url: str) -> Head:
    length = response.headers.get("Content-Length", "")
    return Head(
        url=url,
        size_bytes=int(length) if length.isdecimal() else None,
        etag=response.headers.get("ETag", ""),
        last_modified=response.headers.get("Last-Modified", ""),
        content_type=response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
    )


def _redirected(first: str, at: str, location: str, redirects: int, may_move: bool) -> str:
    """Where a redirect leads.

    Raises: MissingResource for one that is not followed.
    """
    to = urljoin(at, location)
    if redirects > _MOST_REDIRECTS or not location:
        raise MissingResource(f"{first}: redirects without end ({redirects}); give another --mirror")
    before, after = urlsplit(at), urlsplit(to)
    if after.scheme not in ("http", "https"):
        raise MissingResource(f"{at}: redirects to {to[:200]}, which is not followed; give another --mirror")
    if before.scheme == "https" and after.scheme != "https":
        raise MissingResource(f"{at}: redirects from https to {to[:200]}, which is not followed; give another --mirror")
    if not may_move and before.netloc != after.netloc:
        raise MissingResource(
            f"{at}: redirects to {after.netloc}, another host, whose lists of sums are not believed; give another --mirror"
        )
    return to


def _retry_after_s(value: str) -> float | None:
    """Seconds, from a number or a date."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _refusal(url: str, status: int) -> LeiaError:
    if status in (404, 410):
        return NotFound(f"{url}: not there ({status})")
    if status in (401, 403):
        return UsageError(
            f"{url}: refused ({status}); servers of dumps refuse those who do not say who they are: give --contact with "
            "your e-mail address or a page about your work, or another --mirror"
        )
    return MissingResource(f"{url}: the server answers {status}; give another --mirror, or try later")


def _reason(error: BaseException) -> str:
    """The innermost cause, in short."""
    while (cause := error.__cause__ or error.__context__ or getattr(error, "reason", None)) is not None:
        if not isinstance(cause, BaseException) or cause is error:
            break
        error = cause
    return " ".join(str(error).split())[:160] or type(error).__name__


def _short(url: str) -> str:
    return url.rpartition("/")[2] or urlsplit(url).netloc
