"""One line an entry, with the ids of what it belongs to and with no secret in it."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from django.core.exceptions import ImproperlyConfigured
from structlog.contextvars import bound_contextvars

from audit import archive, verify
from audit.lane import Lane
from audit.models import ArchiveRun, VerificationRun
from audit.request import Request
from audit.tests.doors import history
from audit.watcher import Step, Watcher
from dezky.logging import (
    MAX_CHARACTERS,
    SECRET_SETTINGS,
    URL_SETTINGS,
    Mask,
    configuration,
    secrets_in,
)

from .lines import lines_of
from .test_settings import run

ROOT = Path(__file__).parents[2]
KEY = base64.b64encode(bytes(range(100, 132))).decode()
SEED = base64.b64encode(bytes(range(32))).decode()
TOKEN = "dezky_" + "0123456789abcdef" * 4
# What has each of the characters that another form of a text writes in another way.
ODD = "pä\"ss'w\\ör d/%"
SECRETS = {
    "SECRET_KEY": "a-secret-key-of-django",
    "AUDIT_SIGNING_KEY": KEY,
    "AUDIT_SIGNING_KEYS": f"+ed25519:k-1:{SEED}:until=2027-01-01\n# remark",
    "AUDIT_COLD_ACCESS_KEY": "the-access-key",
    "AUDIT_COLD_SECRET_KEY": ODD,
    "AUDIT_COLD_ENDPOINT": "https://somebody:endpoint-password@s3.example.eu",
    "REDIS_URL": f"redis://:{quote(ODD[::-1], safe='')}@redis:6379/0",
    "EMAIL_HOST_PASSWORD": "password-of-mail",
    "AUDIT_ALARM_WEBHOOK_URL": "https://hooks.example.eu/services/T0/B0?token=t0k3n-of-it",
    "AUDIT_ALARM_WEBHOOK_SECRET": "whsec_bm90LXNvLXNlY3JldA==",
    "METRICS_TOKEN": "may-ask-for-figures",
    "DATABASES": {
        "default": {"PASSWORD": "password-of-database", "PORT": 5432},
        "hot": {"HOST": "mongodb://u:password-of-hot@h1,h2/?x=1", "OPTIONS": {"x": ["", 1]}},
    },
}
SHOWN_IN_PLAIN = [
    *(value for name, value in SECRETS.items() if isinstance(value, str) and "URL" not in name),
    SEED,
    "endpoint-password",
    quote(ODD[::-1], safe=""),
    ODD[::-1],
    SECRETS["AUDIT_ALARM_WEBHOOK_URL"],
    "/services/T0/B0?token=t0k3n-of-it",
    "t0k3n-of-it",
    "bm90LXNvLXNlY3JldA==",
    "password-of-database",
    "password-of-hot",
    TOKEN,
]

logger = logging.getLogger("audit.test")


# What a line has ---------------------------------------------------------------------------


def test_a_line_is_an_object_with_time_level_logger_event_and_ids() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    with (
        lines_of("audit") as lines,
        bound_contextvars(request_id="r-1", run=7, task_id="t-1", task="audit.watch"),
    ):
        logger.warning("Seq %d is %s.", 5, "gone")
    (line,) = lines()
    time = line.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert before <= datetime.fromisoformat(time) <= datetime.now(UTC)
    assert list(line) == ["level", "logger", "event", "request_id", "run", "task", "task_id"]
    assert list(line.values()) == [
        *("warning", "audit.test", "Seq 5 is gone."),
        *("r-1", 7, "audit.watch", "t-1"),
    ]


def test_a_failure_is_in_its_line_as_text() -> None:
    with lines_of("audit") as lines, lines_of("audit", form="line") as readable:
        try:
            raise ValueError("why\nnot")
        except ValueError:
            logger.exception("It failed", stack_info=True)
    (line,) = lines()
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ValueError: why\nnot")
    assert "test_a_failure_is_in_its_line_as_text" in line["stack_info"]
    (text,) = readable.text().splitlines()
    assert r"ERROR audit.test: It failed | Traceback (most recent call last):\n  File" in text
    assert r"ValueError: why\nnot | " in text


def test_a_readable_line_has_the_ids_before_the_event() -> None:
    with lines_of("audit", form="line") as lines, bound_contextvars(run=7, task="a b=c"):
        logger.info("It says: %s", "run=8", extra={"client": "::1", "ms": 1.5, "status": 200})
    time, _, rest = lines.text().partition("Z ")
    assert datetime.fromisoformat(time)
    assert rest == 'INFO audit.test run=7 task="a b=c" ms=1.5 client=::1: It says: run=8\n'


@pytest.mark.parametrize("form", ["json", "line"])
def test_no_text_can_make_a_second_line_or_command_a_terminal(form: str) -> None:
    evil = (
        "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029" + '{"level": "info"}' + "\x1b[2J\x07\u202e\x00"
    )
    lone = "\ud800"
    with lines_of("audit", form=form) as lines, bound_contextvars(task=evil):
        logger.warning("%s", evil, extra={"path": evil, "user": evil + lone})
        logger.warning("%s%s", evil, lone)
        try:
            raise ValueError(evil)
        except ValueError:
            logger.exception("It failed")
    text = lines.text()
    assert len(text.splitlines()) == 3
    assert text.replace("\n", "").isprintable()
    if form == "json":
        assert lines()[0]["event"] == lines()[0]["path"] == lines()[0]["task"] == evil
        assert lines()[1]["event"] == evil + lone
    else:
        assert r"\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029" in text


def test_what_cannot_be_formatted_is_one_line_too_and_shows_no_argument() -> None:
    two = "one %s two %s"

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with lines_of("audit") as lines:
        logger.warning(two, "payload")
        logger.warning("this %s", Broken())
        logger.warning(Broken())
        logger.warning("fine", extra={"user": Broken()})
    assert [line["event"] for line in lines()] == [
        "This entry could not be formatted (TypeError): one %s two %s",
        "This entry could not be formatted (RuntimeError): this %s",
        "This entry could not be formatted (RuntimeError): Broken",
        "This entry could not be formatted (RuntimeError): fine",
    ]


# What it has not ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "line"])
def test_no_secret_is_in_a_line_wherever_it_comes_from(form: str) -> None:
    shown = [str(text) for text in SHOWN_IN_PLAIN]
    mask = Mask(secrets_in(SECRETS))
    for text in shown:
        with (
            lines_of("audit", form=form, mask=mask) as lines,
            bound_contextvars(task=text, run={"in": [text]}),
        ):
            logger.warning("It was %s!", text, extra={"path": text, "user": text.encode()})
            logger.warning({"in": text})
            for escaped in (quote(text), repr(text), json.dumps(text)):
                logger.warning("x%sx", escaped)
            logger.warning("%s", json.dumps(text, ensure_ascii=False))
            try:
                raise ValueError(text)
            except ValueError:
                logger.exception("%s", text)
        said = lines.text()
        assert said.count("[secret]") >= 3 * 7
        for way in (str, quote, repr, ascii, json.dumps):
            assert way(text).strip("\"'") not in said
    assert SEED not in repr(mask)


def test_the_rest_of_a_text_stays() -> None:
    mask = Mask(secrets_in({**SECRETS, "METRICS_TOKEN": "short", "SECRET_KEY": "logger"}))
    password = quote(ODD[::-1], safe="")
    with lines_of("audit", mask=mask) as lines:
        logger.warning("Cannot connect to redis://:%s@redis:6379/0, a short word", password)
        logger.warning("dezky_%s", "0" * 63)
        logger.warning("a logger", extra={"status": 123456})
    first, second, third = lines()
    assert first["event"] == "Cannot connect to redis://:[secret]@redis:6379/0, a short word"
    assert second["event"] == "dezky_" + "0" * 63
    assert (third["logger"], third["event"], third["status"]) == (
        "audit.test",
        "a [secret]",
        123456,
    )
    with lines_of("audit", mask=Mask(["123456"])) as lines:
        logger.warning("a number", extra={"status": 123456})
    assert lines()[0]["status"] == "[secret]"


def test_every_secret_that_the_settings_read_is_known() -> None:
    code = (ROOT / "dezky/settings.py").read_text(encoding="utf-8")
    read = set(re.findall(r'env\.secret\(\s*"([A-Z_]+)"', code))
    assert "SECRET_KEY" in read
    assert read <= {*SECRET_SETTINGS, *URL_SETTINGS}
    urls = set(re.findall(r'env\.(?:database|email)\(\s*"([A-Z_]+)"', code))
    assert urls == {"DATABASE_URL", "HOT_DATABASE_URL", "EMAIL_URL"}  # see secrets_in


def test_a_long_text_is_cut_and_says_so() -> None:
    long = "x" * MAX_CHARACTERS
    mask = Mask([f"{'y' * 50}end"])
    with lines_of("audit", mask=mask) as lines, bound_contextvars(task=long + "abc"):
        logger.warning(long)
        try:
            raise ValueError(f"{long} the end")
        except ValueError:
            logger.exception("%s%send", long[:-10], "y" * 50)  # no half of a secret is left
    fits, cut = lines()
    assert fits["event"] == long
    assert fits["task"] == f"{long} … [3 more characters]"
    assert cut["exception"].endswith("x the end")
    assert re.match(r"\[[\d,]+ more characters\] … ", cut["exception"])
    assert "yyy" not in cut["event"]
    assert all(len(str(value)) < MAX_CHARACTERS + 50 for value in cut.values())


def test_what_a_library_attaches_to_an_entry_is_left_out() -> None:
    with lines_of("django") as lines:
        extra = {"request": "GET /?payload", "data": {"args": "payload"}, "nan": float("nan")}
        logging.getLogger("django.request").error("Not Found", extra=extra)
        logging.getLogger("django.request").error("Not Found", extra={"ms": float("nan")})
    assert "payload" not in lines.text()
    assert lines()[1]["ms"] == "nan"


# The settings ------------------------------------------------------------------------------

SAY = """
import logging, django
django.setup()
for name in ("audit.x", "dezky.x", "other.x", "django.request", "botocore.auth", "gunicorn.error",
             "django.db.backends"):
    for level in (10, 20, 30):
        logging.getLogger(name).log(level, "%s says %s", name, LEVEL)
logging.getLogger("django.server").warning('"GET /?query"')
logging.getLogger("other").error("key %s, token %s", KEY, TOKEN)
""".replace("KEY,", "__import__('os').environ['AUDIT_SIGNING_KEY'],")


def said(**env: str) -> str:
    code = SAY.replace("LEVEL", "level").replace("TOKEN", repr(TOKEN))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "dezky.settings", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == ""
    assert os.environ["AUDIT_SIGNING_KEY"] not in done.stderr
    assert TOKEN not in done.stderr
    return done.stderr


def events(text: str) -> list[str]:
    return [line["event"] for line in map(json.loads, text.splitlines())]


def test_all_loggers_write_json_and_ours_tell_more() -> None:
    found = events(said(LOG_FORMAT="", LOG_LEVEL="", DEBUG="true"))
    assert found == [
        *("audit.x says 20", "audit.x says 30", "dezky.x says 20", "dezky.x says 30"),
        *("other.x says 30", "django.request says 30", "botocore.auth says 30"),
        *("gunicorn.error says 30", "django.db.backends says 30"),
        "key [secret], token [secret]",
    ]


def test_a_level_is_for_all_but_for_what_would_write_payload() -> None:
    found = events(said(LOG_FORMAT="JSON", LOG_LEVEL="DEBUG"))
    assert {"audit.x says 10", "other.x says 10", "django.request says 10"} <= set(found)
    assert {"botocore.auth says 20", "django.db.backends says 20"} <= set(found)
    assert not {"botocore.auth says 10", "django.db.backends says 10"} & set(found)
    assert "query" not in str(found)


def test_a_line_can_be_had_for_a_terminal() -> None:
    lines = said(LOG_FORMAT="line", LOG_LEVEL="error").splitlines()
    (line,) = lines
    assert line.endswith("Z ERROR other: key [secret], token [secret]")


@pytest.mark.parametrize(
    ("form", "level", "message"),
    [
        ("xml", "", "LOG_FORMAT is 'xml': use 'json', or 'line' to read it in a terminal."),
        ("json", "LOUD", "LOG_LEVEL is 'LOUD': use one of DEBUG, INFO, WARNING, ERROR, CRITICAL."),
    ],
)
def test_any_other_word_is_refused(form: str, level: str, message: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        configuration(form, level, {})
    assert str(caught.value) == message


def test_a_command_says_what_is_wrong_with_it_in_one_sentence() -> None:
    done = run("manage.py", "check", LOG_FORMAT="xml")
    assert done.returncode == 1
    assert done.stderr.startswith("manage.py: LOG_FORMAT is 'xml': use 'json', or 'line'")
    assert done.stderr.count("\n") == 1


def test_an_entry_that_cannot_be_written_disturbs_nobody() -> None:
    code = """
import os, logging, django
django.setup()
os.close(2)
logging.getLogger("audit").warning("nobody hears")
print("goes on")
"""
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "dezky.settings"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=env,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == b"goes on\n"


# Which run it was --------------------------------------------------------------------------


class Telling(Watcher):
    """Writes a line at each step, in whichever thread it is done."""

    def done(self, step: Step) -> None:
        """Write it."""
        super().done(step)
        logger.warning("%s", step)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("cold")
def test_each_line_of_a_run_has_its_number_in_its_threads_as_well() -> None:
    history()
    asked = Request(ArchiveRun.Trigger.COMMAND, "ada", override=True)
    with lines_of("audit") as lines:
        result = archive.run(asked, Telling())
        logger.warning("afterwards")
    *within, after = lines()
    assert result.run is not None
    assert {line["event"] for line in within} >= {"leased", "encoded", "rows deleted", "purged"}
    assert {line.get("run") for line in within} == {result.run}
    assert "run" not in after


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("cold")
def test_each_line_of_a_verification_has_its_number() -> None:
    history()
    with lines_of("audit") as lines:
        verify.verify(
            verify.Asked("command", "ada", processes=1),
            progress=lambda events: logger.warning("%d more", events),
        )
        logger.warning("afterwards")
    *within, after = lines()
    assert within
    assert {line.get("verification") for line in within} == {VerificationRun.objects.get().pk}
    assert "verification" not in after


def test_a_lane_has_the_ids_of_who_began_the_job() -> None:
    import threading

    with lines_of("audit") as lines, Lane("test", threading.Event()) as lane:
        for number in (1, 2):
            with bound_contextvars(run=number):
                job = lane.begin(lambda: logger.warning("in the lane"))
            job.result()
        lane.begin(lambda: logger.warning("in the lane")).result()
    assert [line.get("run") for line in lines()] == [1, 2, None]
