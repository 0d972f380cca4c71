"""The log of the program (not the audit log): to standard error, one line an entry.

All that goes through `logging`, ours or a library's, ends here. A line has the time (UTC), level,
logger and event; the ids that are bound in `structlog.contextvars` (`request_id`, `run`,
`verification`, `task_id`, `task`); what a request was; and an exception as text.

No secret is ever in a line: wherever a text holds the value of a secret setting, or what looks
like a token of ours, `[secret]` stands in its place. No payload either: a text is cut, what
libraries attach to their entries is left out, and those that tell what they send never do. And
no text can make a second line, or look like the beginning of one.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from structlog.contextvars import merge_contextvars
from structlog.processors import format_exc_info
from structlog.stdlib import ExtraAdder, ProcessorFormatter

JSON, LINE = "json", "line"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
MAX_CHARACTERS = 4_000
SECRET = "[secret]"  # noqa: S105  # what stands in place of one
SHORTEST_SECRET = 6  # a shorter one would be found in ordinary words

# Settings that are secret as a whole. Of URLs with a password, see `secrets_in`.
SECRET_SETTINGS = (
    "SECRET_KEY",
    "AUDIT_SIGNING_KEY",
    "AUDIT_SIGNING_KEYS",
    "AUDIT_COLD_ACCESS_KEY",
    "AUDIT_COLD_SECRET_KEY",
    "AUDIT_ALARM_WEBHOOK_SECRET",
    "AUDIT_ALARM_WEBHOOK_URL",
    "METRICS_TOKEN",
    "EMAIL_HOST_PASSWORD",
)
URL_SETTINGS = ("REDIS_URL", "AUDIT_COLD_ENDPOINT", "AUDIT_ALARM_WEBHOOK_URL")
TOKEN = r"dezky_[0-9a-f]{64}"  # noqa: S105  # as audit.api makes them
SECRET_PARAMETER = re.compile(r"pass|pwd|secret|token|key", re.I)

# What an entry may bring along. Libraries bring whole requests and the arguments of tasks.
FIELDS = ("method", "path", "status", "ms", "client", "user")
# At DEBUG these write what they send, or get, or ask a database.
TALKATIVE = (
    "amqp",
    "boto3",
    "botocore",
    "celery",
    "django.db.backends",
    "kombu",
    "redis",
    "s3transfer",
    "urllib3",
)
PLAIN_VALUE = re.compile(r"[\w./:@+-]+", re.ASCII)

Entry = MutableMapping[str, Any]


def configuration(form: str, level: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return `LOGGING`, where these are all other settings.

    `level` is for all; where there is none, our own loggers tell more than the others. Raises
    ImproperlyConfigured where `form` or `level` is none.
    """
    form, level = form.strip().lower() or JSON, level.strip().upper()
    if form not in (JSON, LINE):
        raise ImproperlyConfigured(
            f"LOG_FORMAT is '{form}': use 'json', or 'line' to read it in a terminal."
        )
    if level and level not in LEVELS:
        raise ImproperlyConfigured(f"LOG_LEVEL is '{level}': use one of {', '.join(LEVELS)}.")
    as_others = {"level": "NOTSET", "handlers": [], "propagate": True}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "one line": {"()": Formatter, "form": form, "mask": Mask(secrets_in(settings))}
        },
        "handlers": {"stderr": {"()": Handler, "formatter": "one line"}},
        "root": {"handlers": ["stderr"], "level": level or "WARNING"},
        "loggers": {
            **{name: {"level": level or "INFO"} for name in ("audit", "dezky")},
            # Django and gunicorn come with handlers of their own, which would write other lines.
            "django": as_others,
            # It writes addresses with their query strings; dezky.request has told the rest.
            "django.server": {**as_others, "level": "CRITICAL"},
            "gunicorn.error": {"handlers": [], "propagate": True},  # its level: --log-level
            **{name: {"level": "INFO" if level == "DEBUG" else "NOTSET"} for name in TALKATIVE},
        },
    }


# Secrets -----------------------------------------------------------------------------------


class Mask:
    """What takes secrets out of a text; it shows none itself."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Take the secrets."""
        forms = {form for secret in secrets for form in _forms(secret)}
        longest_first = sorted(
            (form for form in forms if len(form) >= SHORTEST_SECRET), key=len, reverse=True
        )
        self._pattern = re.compile("|".join([*map(re.escape, longest_first), TOKEN]))

    def __repr__(self) -> str:
        """Return nothing that is secret."""
        return "<Mask>"

    def apply(self, text: str) -> str:
        """Return the text without them."""
        return self._pattern.sub(SECRET, text)


def secrets_in(settings: Mapping[str, Any]) -> set[str]:
    """Return all that is secret in these settings."""
    found = {str(settings.get(name) or "") for name in SECRET_SETTINGS}
    for entry in re.split(r"[,\n]", str(settings.get("AUDIT_SIGNING_KEYS") or "")):
        found.update(entry.split(":")[2:3])
    webhook_secret = str(settings.get("AUDIT_ALARM_WEBHOOK_SECRET") or "")
    found.add(webhook_secret.removeprefix("whsec_"))
    # An error of the connection names the host and, apart from it, the path: the part that counts.
    webhook = str(settings.get("AUDIT_ALARM_WEBHOOK_URL") or "")
    found.add("/".join(["", *webhook.split("/")[3:]]))
    for name in URL_SETTINGS:
        found.update(_passwords(str(settings.get(name) or "")))
    for database in (settings.get("DATABASES") or {}).values():
        found.add(str(database.get("PASSWORD") or ""))
        for text in _texts(database):
            found.update(_passwords(text))
    return {secret.strip() for secret in found}


def _passwords(text: str) -> Iterator[str]:
    """Yield the passwords in a URL, or in several."""
    for url in {text, *re.split(r"[,;\s]", text)}:
        _, is_url, rest = url.partition("://")
        if not is_url:
            continue
        yield rest.rpartition("@")[0].partition(":")[2]
        try:
            query = urlsplit(url).query
        except ValueError:
            continue
        yield from (value for name, value in parse_qsl(query) if SECRET_PARAMETER.search(name))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _forms(secret: str) -> Iterator[str]:
    """Yield the ways in which a text may hold a secret."""
    for form in (secret, unquote(secret), secret.rstrip("=")):
        yield form
        yield quote(form)
        yield quote(form, safe="")
        yield repr(form)[1:-1]
        yield json.dumps(form)[1:-1]
        yield json.dumps(form, ensure_ascii=False)[1:-1]


# Lines -------------------------------------------------------------------------------------


class Handler(logging.StreamHandler[Any]):
    """To standard error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # named by the base
        """Say nothing: standard error is gone, and what `logging` would say holds secrets."""


class Formatter(ProcessorFormatter):
    """Makes one line of an entry, whatever it holds."""

    def __init__(self, form: str = JSON, mask: Mask | None = None) -> None:
        """Take the form, and what takes secrets out."""
        self._mask = mask or Mask()
        super().__init__(
            foreign_pre_chain=[merge_contextvars, ExtraAdder(FIELDS)],
            processors=[format_exc_info, self._in_order, as_line if form == LINE else as_json],
        )

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; an entry that cannot be formatted says so in its own."""
        try:
            return super().format(record)
        except Exception as error:  # whatever an argument raises where it becomes text
            kind = type(error).__name__
            failed = logging.makeLogRecord(
                {
                    name: getattr(record, name)
                    for name in ("name", "levelno", "levelname", "created")
                }
            )
            failed.msg = f"This entry could not be formatted ({kind}): {_template(record)}"
            return super().format(failed)

    def _in_order(self, logger: object, method: str, entry: Entry) -> Entry:
        """Return what is shown, in the order in which it is read."""
        record: logging.LogRecord = entry.pop("_record")
        del entry["_from_structlog"]
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        shown: Entry = {
            "timestamp": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": self._shown(record.name),
            "event": self._shown(str(entry.pop("event"))),
        }
        last = {name: entry.pop(name, None) for name in ("exception", "stack_info")}
        ids = sorted(entry.keys() - set(FIELDS))  # they come in no order
        for name in (*ids, *FIELDS):
            if (value := entry.get(name)) is not None:
                shown.setdefault(name, self._shown(value))
        for name, text in last.items():
            if text:
                shown[name] = self._shown(str(text), keep_end=True)
        return shown

    def _shown(self, value: Any, *, keep_end: bool = False) -> Any:
        """Return a number, a truth value, or a text without secrets that is not too long."""
        number = isinstance(value, int | float) and math.isfinite(value)
        text = self._mask.apply(str(value))
        if number and text == str(value):
            return value
        return cut(text, keep_end=keep_end)


def cut(text: str, *, keep_end: bool = False) -> str:
    """Return a text that is not too long, and says what was left out; a traceback ends in why."""
    more = len(text) - MAX_CHARACTERS
    if more <= 0:
        return text
    note = f"[{more:,} more characters]"
    return f"{note} … {text[more:]}" if keep_end else f"{text[:MAX_CHARACTERS]} … {note}"


def as_json(logger: object, method: str, entry: Entry) -> str:
    """Return one JSON object in ASCII: no reader takes anything in it for the end of a line."""
    return json.dumps(entry)


def as_line(logger: object, method: str, entry: Entry) -> str:
    """Return a line for a terminal: time, level, logger, ids, then a colon and the event."""
    rest = dict(entry)
    head = [rest.pop("timestamp"), str(rest.pop("level")).upper(), rest.pop("logger")]
    event = rest.pop("event")
    tail = [str(rest.pop(name)) for name in ("exception", "stack_info") if name in rest]
    # What the event of a request's line says already.
    for name in ("method", "path", "status"):
        rest.pop(name, None)
    pairs = [f"{name}={_value(value)}" for name, value in rest.items()]
    return printable(" | ".join([f"{' '.join([*head, *pairs])}: {event}", *tail]))


def printable(text: str) -> str:
    """Return a text with nothing that ends a line or that a terminal obeys."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _value(value: Any) -> str:
    text = str(value)
    return text if PLAIN_VALUE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _template(record: logging.LogRecord) -> str:
    return record.msg if isinstance(record.msg, str) else type(record.msg).__name__
