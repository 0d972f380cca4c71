"""Messages to people: each is sent once by each way, or tried again, and shows no secret."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from django.db import connections

from audit import alarms, notices
from audit.alarms import Finding, Kind, Look
from audit.models import Alarm, Notice
from dezky.logging import Formatter, Mask, secrets_in

from .hook import SECRET, Hook, Told, endless, garbled, silent, status

pytestmark = pytest.mark.django_db(transaction=True)
PASSWORD = "correct-horse-battery"
TEXT = "The disk is full: make room."
NOW = datetime.now(UTC)


class Post:
    """A real mail server that asks for a password; keeps what it was given."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.refuses = ""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802  # the base's name
        """Take a mail, or refuse it."""
        assert session.authenticated
        if self.refuses:
            return self.refuses
        mail: Any = message_from_bytes(envelope.content, policy=policy.default)
        assert envelope.rcpt_tos == [address.strip() for address in mail["To"].split(",")]
        self.mails.append(mail)
        return "250 taken"

    @staticmethod
    def authenticate(server: Any, session: Any, envelope: Any, how: str, who: Any) -> AuthResult:
        """Let in who knows the password."""
        assert isinstance(who, LoginPassword)
        return AuthResult(success=who.password == PASSWORD.encode(), handled=False)

    @property
    def subjects(self) -> list[str]:
        return [str(mail["Subject"]) for mail in self.mails]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def post_office(settings: Any, port: int = 0) -> Iterator[Post]:
    """Run it, and let the settings name it."""
    post, port = Post(), port or free_port()
    controller = Controller(
        post,
        hostname="127.0.0.1",
        port=port,
        authenticator=post.authenticate,
        auth_require_tls=False,
    )
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "dezky", PASSWORD
    settings.DEFAULT_FROM_EMAIL = "audit@example.org"
    settings.AUDIT_ALARM_EMAILS = ["ada@example.org", "bo@example.org"]
    controller.start()
    try:
        yield post
    finally:
        controller.stop()


@pytest.fixture
def post(settings: Any) -> Iterator[Post]:
    """Let people hear by mail."""
    with post_office(settings) as running:
        yield running


@pytest.fixture
def hook(settings: Any) -> Iterator[Hook]:
    """Let people hear by a webhook."""
    with Hook() as running:
        settings.AUDIT_ALARM_WEBHOOK_URL = running.url
        settings.AUDIT_ALARM_WEBHOOK_SECRET = SECRET
        yield running


def open_one(text: str = TEXT, subject: str = "room") -> Alarm:
    alarms.settle(subject, [Finding(Kind.FULL, text)])
    return alarms.open_alarms().get(subject=subject)


def clear_one(subject: str = "room") -> None:
    alarms.go("all", [Look(subject, list)])


def let_pass(**time: float) -> None:
    """Let it be later, for what is tried again."""
    for notice in Notice.objects.filter(sent_at=None):
        notice.next_try_at -= timedelta(**time)
        notice.save()


def test_each_is_told_once_by_each_way(post: Post, hook: Hook) -> None:
    row = open_one()
    assert notices.send_due() == 2
    alarms.settle("room", [Finding(Kind.FULL, "Still full.")])
    assert notices.send_due() == 0
    clear_one()
    assert notices.send_due() == 2
    assert notices.send_due() == 0
    assert post.subjects == [
        "[dezky-test] Alarm: disk or quota full",
        "[dezky-test] Over: disk or quota full",
    ]
    opened, cleared = hook.told
    assert [opened["type"], cleared["type"]] == ["alarm.opened", "alarm.cleared"]
    assert opened["data"] | {"opened_at": 0, "last_seen_at": 0} == {
        "origin": "dezky-test",
        "alarm": row.pk,
        "kind": "full",
        "grave": False,
        "subject": "room",
        "message": TEXT,
        "opened_at": 0,
        "last_seen_at": 0,
        "cleared_at": None,
    }
    assert opened["timestamp"] == opened["data"]["opened_at"] == cleared["data"]["opened_at"]
    assert cleared["timestamp"] == cleared["data"]["cleared_at"]
    assert len(set(hook.ids)) == 2
    # A full stop would end the id in what is signed.
    assert "." not in "".join(hook.ids)


def test_a_mail_says_what_is_wrong_since_when_and_where_to_read_on(post: Post) -> None:
    row = open_one("Zu voll – räum auf.\nSofort.")
    assert notices.send_due() == 1
    (mail,) = post.mails
    text = mail.get_content()
    assert "Zu voll – räum auf.\nSofort." in text.replace("\r\n", "\n")
    assert f"opened:    {row.opened_at:%Y-%m-%d %H:%M:%S} UTC" in text
    assert "cleared:   not yet" in text
    assert "docs/operate.md says what full means" in text
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["From"] == "audit@example.org"


def test_a_grave_one_says_so(post: Post, hook: Hook) -> None:
    alarms.settle("claims", [Finding(Kind.APPEND_REFUSED, "Hot was rolled back: restore it.")])
    assert notices.send_due() == 2
    assert post.subjects == ["[dezky-test] Alarm, grave: append refused"]
    assert "append refused (append_refused), grave" in post.mails[0].get_content()
    assert hook.told[0]["data"]["grave"]


def test_nobody_is_told_where_no_way_is_set() -> None:
    open_one()
    assert (Notice.objects.count(), notices.send_due()) == (0, 0)


def test_what_failed_is_tried_again_ever_more_rarely_under_the_same_id(hook: Hook) -> None:
    open_one()
    hook.answers.extend(status(number) for number in (500, 404, 503, 302, 500, 500, 500, 500))
    pauses = []
    for tries in range(1, 9):
        assert notices.send_due() == 0
        assert notices.send_due() == 0  # it is not yet time
        notice = Notice.objects.get()
        assert (notice.tries, notice.sent_at) == (tries, None)
        assert notice.error.startswith("The webhook answered with ")
        pauses.append(round((notice.next_try_at - datetime.now(UTC)).total_seconds() / 60))
        let_pass(hours=2)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert notices.send_due() == 1
    notice = Notice.objects.get()
    assert (notice.error, notice.sent_at is not None, notice.tries) == ("", True, 9)
    assert (len(hook.ids), len(set(hook.ids))) == (9, 1)


def test_that_it_is_over_is_never_told_before_that_it_was(hook: Hook) -> None:
    open_one()
    hook.answers.extend([status(503)] * 3)
    for _ in range(2):
        assert notices.send_due() == 0
        let_pass(hours=1)
    open_one(subject="another")
    clear_one()
    let_pass(hours=1)
    assert notices.send_due() == 0  # the third one fails, too
    assert notices.send_due() == 1  # what has nothing to do with it
    let_pass(hours=1)
    while notices.send_due():
        pass
    assert [body["data"]["subject"] for body in hook.told[:3]] == ["room"] * 3
    assert [(body["type"], body["data"]["subject"]) for body in hook.told[3:]] == [
        ("alarm.opened", "another"),
        ("alarm.opened", "room"),
        ("alarm.cleared", "room"),
    ]


def test_what_is_being_sent_when_it_is_over_is_not_sent_twice(hook: Hook) -> None:
    open_one()

    def over_meanwhile(told: Told) -> None:
        clear_one()
        assert notices.send_due() == 0
        connections.close_all()
        status(204)(told)

    hook.answers.append(over_meanwhile)
    assert notices.send_due() == 1
    assert notices.send_due() == 1
    assert hook.types == ["alarm.opened full", "alarm.cleared full"]


def test_once_it_is_over_it_waits_no_longer_for_its_turn(hook: Hook) -> None:
    open_one()
    hook.answers.append(status(503))
    assert notices.send_due() == 0
    clear_one()
    assert notices.send_due() + notices.send_due() == 2
    assert hook.types == ["alarm.opened full", "alarm.opened full", "alarm.cleared full"]


def test_what_could_not_be_sent_for_three_days_is_given_up(hook: Hook) -> None:
    row = open_one()
    Alarm.objects.update(opened_at=datetime.now(UTC) - timedelta(days=3, minutes=1))
    assert (notices.send_due(), hook.told) == (0, [])
    Alarm.objects.update(opened_at=datetime.now(UTC) - timedelta(days=3, minutes=-1))
    assert notices.send_due() == 1
    Notice.objects.all().delete()
    # That it is over is told, however long ago it began.
    Alarm.objects.update(opened_at=datetime.now(UTC) - timedelta(days=9))
    clear_one()
    assert notices.send_due() == 1
    assert hook.types[-1] == "alarm.cleared full"
    Notice.objects.update(sent_at=None, next_try_at=NOW)
    Alarm.objects.filter(pk=row.pk).update(cleared_at=datetime.now(UTC) - timedelta(days=4))
    assert notices.send_due() == 0


def test_one_who_died_before_it_was_written_down_is_followed_under_the_same_id(
    hook: Hook,
) -> None:
    open_one()
    assert notices.send_due() == 1
    Notice.objects.update(sent_at=None)  # as if it had died here
    assert notices.send_due() == 0  # somebody else may be at it
    let_pass(minutes=2)
    assert notices.send_due() == 1
    assert hook.ids[0] == hook.ids[1]


def test_a_redirect_is_not_followed(hook: Hook) -> None:
    """Wherever it leads to, that is not whom we tell."""
    with Hook() as other:
        open_one()
        hook.answers.append(status(307, Location=other.url))
        assert notices.send_due() == 0
        assert (len(hook.told), other.told) == (1, [])
        assert Notice.objects.get().error == "The webhook answered with 307: see its log."


def test_two_senders_at_once_send_each_once(hook: Hook) -> None:
    count = 4
    for number in range(count):
        open_one(subject=f"room {number}")
    barrier = threading.Barrier(4)
    sent: list[int] = []

    def work() -> None:
        try:
            barrier.wait()
            sent.append(notices.send_due())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(sent) == len(hook.ids) == len(set(hook.ids)) == count
    assert len(sent) == len(threads)


def test_an_answer_without_end_is_not_waited_for(hook: Hook) -> None:
    open_one()
    hook.answers.append(endless)
    assert notices.send_due() == 1
    assert hook.left.wait(30)


def test_no_answer_at_all_is_waited_for_once(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends has other work: the next message has its turn at the next call."""
    monkeypatch.setattr(notices, "SECONDS", 0.2)
    open_one()
    open_one(subject="another")
    hook.answers.append(silent)
    assert notices.send_due() == 0
    assert (len(hook.told), Notice.objects.filter(tries=0).count()) == (1, 1)
    error = Notice.objects.exclude(tries=0).get().error
    assert error == ("The webhook did not answer (ReadTimeoutError): see AUDIT_ALARM_WEBHOOK_URL.")
    assert notices.send_due() == 1
    let_pass(minutes=2)
    assert notices.send_due() == 1


def test_one_way_that_fails_does_not_hold_up_the_other(post: Post, hook: Hook) -> None:
    post.refuses = "550 not today"
    open_one()
    open_one(subject="another")
    assert notices.send_due() == 2
    assert (post.mails, len(hook.told)) == ([], 2)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/hooks/s3cret-path", "no address/s3cret"])
def test_an_address_is_in_no_error_and_no_line(
    address: str, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings.AUDIT_ALARM_WEBHOOK_URL, settings.AUDIT_ALARM_WEBHOOK_SECRET = address, SECRET
    open_one()
    assert notices.send_due() == 0
    error = Notice.objects.get().error
    assert error.startswith("The webhook did not answer (")
    assert "A message of disk or quota full" in caplog.text
    for text in (error, caplog.text):
        assert "s3cret" not in text
        assert SECRET[6:] not in text


def test_an_answer_that_is_none_brings_no_address_into_a_line(
    hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    """The library that sends writes a line that has it; no line leaves us but in our own form."""
    open_one()
    hook.answers.append(garbled)
    assert notices.send_due() == 0
    assert hook.path in caplog.text
    ours = Formatter("line", Mask(secrets_in(hook.env)))
    for text in (Notice.objects.get().error, *map(ours.format, caplog.records)):
        assert text
        assert hook.path not in text
        assert SECRET[6:] not in text


def test_a_wrong_password_is_in_no_error_and_no_line(
    post: Post, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings.EMAIL_HOST_PASSWORD = "wrong-horse-battery"
    open_one()
    assert notices.send_due() == 0
    error = Notice.objects.get().error
    assert error == (
        "The mail server did not take it (SMTPAuthenticationError): see EMAIL_URL and EMAIL_FROM."
    )
    for text in (error, caplog.text):
        assert "horse" not in text
    settings.EMAIL_HOST_PASSWORD = PASSWORD
    let_pass(minutes=2)
    assert notices.send_due() == 1
    assert len(post.mails) == 1


def test_a_mail_server_that_is_away_is_tried_again(settings: Any) -> None:
    with post_office(settings):
        pass
    port = settings.EMAIL_PORT
    open_one()
    assert notices.send_due() == 0
    assert "ConnectionRefusedError" in Notice.objects.get().error
    let_pass(minutes=2)
    with post_office(settings, port) as post:
        assert notices.send_due() == 1
        assert len(post.mails) == 1


@pytest.mark.parametrize("secret", ["", "whsec_", "no base64!", "whsec_å"])
def test_nothing_is_signed_by_a_secret_that_is_none(
    secret: str, hook: Hook, settings: Any
) -> None:
    settings.AUDIT_ALARM_WEBHOOK_SECRET = secret
    open_one()
    assert notices.send_due() == 0
    assert hook.told == []
    assert Notice.objects.get().error == (
        "AUDIT_ALARM_WEBHOOK_SECRET is missing, or is no base64: set it."
    )


def test_a_secret_may_come_without_prefix_and_padding(hook: Hook, settings: Any) -> None:
    settings.AUDIT_ALARM_WEBHOOK_SECRET = SECRET.removeprefix("whsec_").rstrip("=")
    open_one()
    assert notices.send_due() == 1
    assert len(hook.told) == 1
