"""One attempt to send an event to a webhook: signed, to an address that was looked at, and over in time."""

import base64
import contextlib
import hashlib
import hmac
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final
from urllib.parse import urlsplit

from django.utils.translation import gettext_noop as noop

from accounts import outside

_ANSWER_OCTETS: Final = 64 * 1024
"""What is read of an answer at most: nothing of it is needed but that it ends."""


class Result(Enum):
    """What became of an attempt."""

    DELIVERED = auto()
    REFUSED = auto()  # this event, by an endpoint that may take others
    AWAY = auto()  # the endpoint takes nothing now
    GONE = auto()  # it never will again: 410


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint said, or why it said nothing."""

    result: Result
    status: int | None = None
    error: str = ""  # a sentence without its full stop, in English as catalogues know it: it is read later


@dataclass(frozen=True, kw_only=True)
class Config:
    """How to send. `timeout` is of one attempt in seconds, from the connection to the end of the answer."""

    allow_private: bool
    tls: ssl.SSLContext
    timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class Parcel:
    """One event on its way to one webhook."""

    delivery_id: int
    attempts: int
    event_id: str
    body: bytes


def signature(keys: Sequence[bytes], *, event_id: str, timestamp: int, body: bytes) -> str:
    """The value of `Webhook-Signature` (Standard Webhooks, symmetric): one for each key, with blanks between."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    return " ".join("v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)


class Endpoint:
    """A webhook's URL, and the connection to it; for one thread at a time."""

    def __init__(self, url: str, keys: Sequence[bytes], config: Config) -> None:
        self._url = urlsplit(url)
        self._keys = keys
        self._config = config
        self._connection: http.client.HTTPConnection | None = None

    def post(self, parcel: Parcel) -> Answer:
        """Send one event, and look at the answer. Raises nothing that the endpoint can cause."""
        if self._connection:
            try:
                return self._attempt(parcel, [])
            except (http.client.RemoteDisconnected, ConnectionError):
                pass  # it closed what it said it would keep: that tells nothing of this event
        try:
            return self._attempt(parcel, self._resolve())
        except outside.Refused as refusal:
            return Answer(Result.AWAY, error=str(refusal))
        except TimeoutError:
            return Answer(Result.AWAY, error=noop("there was no answer in time"))
        except ssl.SSLError:
            return Answer(
                Result.AWAY, error=noop("TLS failed: its certificate is not valid for it, or its version is old")
            )
        except ConnectionRefusedError:
            return Answer(Result.AWAY, error=noop("the connection was refused"))
        except http.client.RemoteDisconnected:
            return Answer(Result.AWAY, error=noop("the connection was closed without an answer"))
        except ConnectionError:
            return Answer(Result.AWAY, error=noop("the connection was broken off"))
        except OSError:
            return Answer(Result.AWAY, error=noop("there is no way to its address"))
        except (http.client.HTTPException, ValueError):
            return Answer(Result.AWAY, error=noop("its answer is not HTTP"))

    def _attempt(self, parcel: Parcel, addresses: list[outside.Address]) -> Answer:
        """One attempt, on the connection that there is or on one to these addresses. Raises `TimeoutError` if late."""
        watch = _Watch(self._config.timeout)
        try:
            if self._connection is None:
                self._connection = self._connect(addresses, watch)
            return self._exchange(parcel, watch)
        except BaseException:
            self.close()
            if watch.is_over():
                raise TimeoutError from None
            raise
        finally:
            watch.end()

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _resolve(self) -> list[outside.Address]:
        if self._url.scheme != "https" and not self._config.allow_private:
            raise outside.Refused(noop("its URL does not begin with https://"))
        host, port = self._url.hostname or "", self._url.port or (443 if self._url.scheme == "https" else 80)
        return outside.resolve(host, port, allow_private=self._config.allow_private)

    def _connect(self, addresses: list[outside.Address], watch: "_Watch") -> http.client.HTTPConnection:
        """A connection to the first of these addresses that takes one; TLS is with the name."""
        host = self._url.hostname or ""
        failure: OSError | None = None
        for address in addresses:
            try:
                plain = socket.create_connection((address.host, address.port), timeout=watch.left())
            except OSError as error:
                failure = error
                continue
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # header and body are two writes
            watch.over(plain)
            made = http.client.HTTPConnection(self._url.netloc)  # of this name is the header field Host
            made.auto_open = 0  # it never connects by itself
            if self._url.scheme == "https":
                try:
                    made.sock = watch.over(self._config.tls.wrap_socket(plain, server_hostname=host))
                except BaseException:
                    plain.close()
                    raise
            else:
                made.sock = plain
            return made
        raise failure or OSError("no address")

    def _exchange(self, parcel: Parcel, watch: "_Watch") -> Answer:
        assert self._connection is not None
        watch.over(self._connection.sock)
        timestamp = int(time.time())
        path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        self._connection.request(
            "POST",
            path,
            body=parcel.body,
            headers={
                "Content-Type": "application/json",
                "User-Agent": "Mailhost",
                "Webhook-Id": parcel.event_id,
                "Webhook-Timestamp": str(timestamp),
                "Webhook-Signature": signature(
                    self._keys, event_id=parcel.event_id, timestamp=timestamp, body=parcel.body
                ),
            },
        )
        response = self._connection.getresponse()
        status = response.status
        response.read(_ANSWER_OCTETS)
        watch.left()  # what was cut off looks like a whole header
        if response.will_close or not response.isclosed():
            self.close()
        return _judged(status)


def _judged(status: int) -> Answer:
    if 200 <= status < 300:
        return Answer(Result.DELIVERED, status)
    if status == 410:
        return Answer(Result.GONE, status, noop("it answered 410: the webhook is disabled"))
    if status in (429, 502, 503, 504):
        return Answer(Result.AWAY, status, f"it answered {status}")
    if 300 <= status < 400:
        return Answer(Result.REFUSED, status, noop("it redirects, which is not followed"))
    return Answer(Result.REFUSED, status, f"it answered {status}")


class _Watch:
    """Ends an attempt in time: a peer that sends an octet now and then never runs into a socket's own timeout."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def left(self) -> float:
        """Seconds. Raises `TimeoutError`."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def over(self, watched: Any) -> Any:
        """Watch this socket, and return it."""
        watched.settimeout(self.left())
        self._socket = watched
        return watched

    def is_over(self) -> bool:
        """Whether there is no time left."""
        return time.monotonic() >= self._deadline

    def end(self) -> None:
        """Stop watching."""
        self._timer.cancel()

    def _cut(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
