"""What the SDK asks and answers, in our words.

An error says what was asked, where, how often it was tried and within what limits, why it failed
and what to do, in one sentence, without the SDK's own text, which holds whole addresses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError, S3ValidationError
from urllib3.exceptions import NameResolutionError

from audit import conf
from audit.format.errors import AuditError, GapError

MAX_WORDS = 200  # of a service's own words
VERBS = {"PutObject": "PUT", "HeadObject": "HEAD", "GetObject": "GET", "ListObjects": "LIST"}


class UnavailableError(AuditError):
    """The object store did not answer, or refused: nothing can be said about what it holds."""


class FullError(UnavailableError):
    """The object store has no room, or a quota is used up."""


class ClockError(UnavailableError):
    """The object store refuses what this machine's clock says."""


class MissingError(GapError):
    """There is no such object in the bucket."""


class ExistsError(AuditError):
    """The name of an object is taken."""


@dataclass
class _Asked:
    """What the SDK really asks while one thing is wanted: the tries of each operation."""

    attempts: int  # at most
    seconds: int  # of silence in each
    operation: str = ""
    tries: Counter[str] = field(default_factory=Counter)
    broke_off: bool = False  # the newest answer, which the SDK then takes for a 500

    @property
    def times(self) -> int:
        """How often the newest operation was tried."""
        return self.tries[self.operation]


_asked: ContextVar[_Asked | None] = ContextVar("_asked", default=None)


def begin(model: Any, **kwargs: Any) -> None:
    """Note that an operation begins; called by the SDK."""
    if asked := _asked.get():
        asked.operation = model.name
        if model.name != "GetObject":  # whose tries add up: an answer that broke off is one
            asked.tries[model.name] = 0


def count_try(**kwargs: Any) -> None:
    """Note that its request is sent, for the first time or again; called by the SDK."""
    if asked := _asked.get():
        asked.tries[asked.operation] += 1
        asked.broke_off = False


def measure(response_dict: dict[str, Any], **kwargs: Any) -> None:
    """Note whether an answer is shorter than it says; called by the SDK, which does not look."""
    if (asked := _asked.get()) and asked.operation == "ListObjects":
        length = int(response_dict["headers"].get("content-length", 0))
        asked.broke_off = len(response_dict["body"]) < length


KEYS = (
    "the keys are wrong or may not do this: correct AUDIT_COLD_ACCESS_KEY and "
    "AUDIT_COLD_SECRET_KEY, or their rights on the bucket (read, write and list)"
)
CLOCK = "this machine's clock is off: set it by NTP"
FULL = "the bucket is full: raise its quota or give the service room, and run again"
BUSY = "the service is busy or not up yet: run again later"
BROKEN = "the service failed: see its log, and that it has room, and run again"
HINTS = {
    "NoSuchBucket": "the bucket does not exist: create it, or correct AUDIT_COLD_BUCKET",
    "InvalidAccessKeyId": "the access key is not known: correct AUDIT_COLD_ACCESS_KEY",
    "SignatureDoesNotMatch": "the secret key is wrong: correct AUDIT_COLD_SECRET_KEY",
    "AccessDenied": "the key may not do this: give it read, write and list on the bucket",
    "RequestTimeTooSkewed": CLOCK,
    "QuotaExceeded": FULL,
    "XMinioAdminBucketQuotaExceeded": FULL,
    "XMinioStorageFull": FULL,
    "SlowDown": BUSY,
    "ServiceUnavailable": BUSY,
    "InternalError": BROKEN,
    "NotImplemented": (
        "the service cannot do what this software needs (If-None-Match, Content-MD5): see its "
        "documentation, or take another version of it"
    ),
}
# Where there is no word of ours for the code. An answer to a HEAD has no words at all.
STATUS_HINTS = {
    403: f"{KEYS}; or {CLOCK}",
    429: BUSY,
    500: BROKEN,
    501: HINTS["NotImplemented"],
    502: BUSY,
    503: BUSY,
    504: BUSY,
    507: FULL,
}
NO_ENCRYPTION = (
    "AUDIT_COLD_SSE is on, and the service cannot encrypt: turn AUDIT_COLD_SSE off, or give the "
    "service a key management, and run again"
)
BROKE_OFF = "it broke off"
# In this order: the SDK's own are errors of the operating system, too.
REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (ConnectTimeoutError, "no connection in that time"),
    (ReadTimeoutError, "silence for that time"),
    (TimeoutError, "it comes too slowly"),
    (EndpointConnectionError, "no connection"),
    (ConnectionClosedError, "the connection was cut off"),
    (IncompleteReadError, BROKE_OFF),
    (ResponseStreamingError, BROKE_OFF),
    (OSError, BROKE_OFF),
    (ResponseParserError, "it cannot be read"),
    (S3ValidationError, "it is another part of the object than was asked for"),
)
UNREACHED = "see that AUDIT_COLD_ENDPOINT is right and the service is up, and run again"


@contextmanager
def asking(verb: str, key: str, attempts: int = 0, seconds: int = 0) -> Iterator[_Asked]:
    """Turn what the SDK raises into our errors, with what was asked and what to do.

    `attempts` and `seconds`: the client's bounds, where they are not those of the settings.
    """
    asked = _Asked(attempts or conf.cold_attempts(), seconds or conf.cold_timeout_seconds())
    token = _asked.set(asked)
    try:
        yield asked
    except FileNotFoundError:
        raise MissingError(f"{_what(verb, key)}: there is no such object.") from None
    except ClientError as error:
        if asked.broke_off:
            raise _unanswered(verb, key, asked, BROKE_OFF) from None
        raise _refused(verb, key, asked, error) from None
    except (
        BotoCoreError,
        RetriesExceededError,
        ResponseParserError,
        S3ValidationError,
    ) as error:
        raise _unanswered(verb, key, asked, _reason(error)) from None
    finally:
        _asked.reset(token)


def _what(verb: str, key: str) -> str:
    return f"{verb} {key} at {conf.cold_endpoint()}, bucket '{conf.cold_bucket()}'"


def _tries(asked: _Asked) -> str:
    """Say how often it was really tried, and how often it would have been."""
    most = max(asked.attempts, asked.times)
    return f"after {asked.times} of {most} tries"


def _unanswered(verb: str, key: str, asked: _Asked, reason: str) -> UnavailableError:
    """Return what it means that there was no answer, or not all of it."""
    return UnavailableError(
        f"{_what(VERBS.get(asked.operation, verb), key)}: no whole answer {_tries(asked)} of up "
        f"to {asked.seconds} s ({reason}); {UNREACHED}."
    )


def _refused(verb: str, key: str, asked: _Asked, error: ClientError) -> AuditError:
    """Return what a refusal means."""
    detail = error.response.get("Error", {})
    code = str(detail.get("Code", "unknown"))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if verb == "PUT" and status in {409, 412}:
        return ExistsError(f"{_what(verb, key)}: the name is taken.")
    if verb in {"HEAD", "GET"} and status == 404 and code != "NoSuchBucket":
        return MissingError(f"{_what(verb, key)}: there is no such object.")
    words = " ".join(str(detail.get("Message", "")).split()).rstrip(".")[:MAX_WORDS]
    named = str(status) if code == str(status) else f"{status} {code}"
    hint = HINTS.get(code) or STATUS_HINTS.get(status)
    # Some services have no code of their own for this.
    if re.search(r"quota|no space|storage full", words, re.IGNORECASE):
        hint = FULL
    if verb == "PUT" and conf.cold_sse():
        if status == 501:
            hint = NO_ENCRYPTION
        elif status in {400, 500}:
            hint = f"{hint or BROKEN}; AUDIT_COLD_SSE is on, so see that it can encrypt, too"
    own = code != str(status) and (status >= 500 or code not in HINTS)
    said = f" (it says: {words})" if words and own else ""
    kind = {FULL: FullError, CLOCK: ClockError}.get(hint or "", UnavailableError)
    return kind(
        f"{_what(VERBS.get(asked.operation, verb), key)}: refused with {named} {_tries(asked)}"
        f"{said}; {hint or 'see its log'}."
    )


def _reason(error: BaseException) -> str:
    """Say in a few words why there was no answer; the SDK's own hold the whole address."""
    if isinstance(error, RetriesExceededError):
        error = error.last_exception
    cause = _cause(error)
    if isinstance(error, SSLError):
        return f"TLS failed: {cause}"
    if isinstance(cause, NameResolutionError):
        return "no address is known for that host"
    if isinstance(error, ConnectionClosedError) and isinstance(cause, TimeoutError):
        return "nothing was taken for that time"
    words = (words for kind, words in REASONS if isinstance(error, kind))
    return next(words, f"{type(error).__name__}: {cause or error}")


def _cause(error: BaseException) -> object:
    """Return what lies beneath an error of the SDK."""
    cause: object = getattr(error, "kwargs", {}).get("error")
    while isinstance(cause, BaseException):
        inner = next((each for each in cause.args if isinstance(each, BaseException)), None)
        if inner is None:
            break
        cause = inner
    return cause
