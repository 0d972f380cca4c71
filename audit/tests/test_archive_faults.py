"""Whatever the object store does, a run says so in one sentence, hot is whole, the next goes on.

Each fault is met on two real servers, as far as they differ where it matters: by a proxy before
them that does one thing wrong, or by the server itself.
"""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from . import fault_proxy as proxies
from . import reader
from .fault_proxy import ALWAYS, Act, FaultProxy, drop, refuse, refuse_after_storing
from .servers import Server
from .simulator import SMALL_BATCH_EVENTS, Site, Template
from .starter import Starter

SERVERS = ("seaweedfs", "juicefs")
# One will do for a variant of what is met on both, where the fault lets nothing reach the server.
ONE, OTHER = SERVERS[:1], SERVERS[1:]
JSONL, MANIFEST = ".jsonl.gz", ".manifest.json"
SLOW = {"AUDIT_COLD_TIMEOUT_SECONDS": "1"}
READ = {"AUDIT_CONFIRM": "read"}
SSE = {"AUDIT_COLD_SSE": "true"}


class Place(Site):
    """A small deployment whose way to the bucket leads through the proxy."""

    def __init__(
        self, folder: Path, template: Template, server: Server, proxy: FaultProxy, start: Starter
    ) -> None:
        super().__init__(folder, template)
        self.server, self.proxy, self._start = server, proxy, start
        self.endpoint = server.endpoint
        self.env.update(
            AUDIT_COLD_ENDPOINT=proxy.endpoint,
            AUDIT_COLD_ATTEMPTS="2",
            AUDIT_BATCH_MAX_EVENTS=str(SMALL_BATCH_EVENTS),
        )

    def manage(self, *args: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a management command to its end."""
        assert data is None
        return self._start.manage(self.env, *args)

    def hot(self) -> dict[int, bytes]:
        """Return the records of all rows of hot."""
        return {seq: record for seq, record, _ in reader.read_hot(self.hot_database)[2]}

    def assert_whole(self, purged: int = 0) -> None:
        """See that only what was purged, so many batches, is not in hot as it was given."""
        assert [state for *_, state in self.batches()][:purged] == ["purged"] * purged
        assert {state for *_, state in self.batches()[purged:]} <= {"planned"}
        end = purged * SMALL_BATCH_EVENTS
        assert self.floor() == end
        hot, given = self.hot(), self.template.records
        for seq in range(end + 1, len(given) + 1):
            assert hot[seq] == given[seq - 1]

    def assert_the_next_run_goes_on(self) -> None:
        """See that it ends well, with everything there once and readable by anyone."""
        answer = self.archive()
        assert (answer["outcome"], answer["exit"], answer["error"]) == ("archived", 0, None)
        self.assert_archived()

    def assert_archived(self) -> None:
        """See that what is due is in cold alone, and the whole log reads."""
        assert [state for *_, state in self.batches()] == ["purged", "purged"]
        assert self.read_log().records == self.template.records


@pytest.fixture(params=SERVERS)
def place(
    request: pytest.FixtureRequest, small: Template, start: Starter, tmp_path: Path
) -> Iterator[Place]:
    """Set up a deployment before a server of this kind."""
    server: Server = request.getfixturevalue(request.param)
    with (
        FaultProxy(server.endpoint) as proxy,
        Place(tmp_path, small, server, proxy, start) as deployment,
    ):
        yield deployment


def assert_one_sentence(error: str, env: dict[str, str]) -> None:
    """See that it can be read aloud, and gives away nothing."""
    assert re.fullmatch(r"[A-Z][^\n<>?]*\.", error) or error.startswith(env["AUDIT_COLD_PREFIX"])
    assert not re.search(r"\. [A-Z]", error)
    assert ".." not in error
    assert not re.search(r"Traceback|Exception|Error\(|object at|HTTPConnection|RequestId", error)
    for name in ("AUDIT_COLD_SECRET_KEY", "AUDIT_COLD_ACCESS_KEY", "AUDIT_SIGNING_KEY"):
        assert env[name] not in error


# What the proxy does -----------------------------------------------------------------------


@dataclass(frozen=True)
class On:
    """A fault: what is done to which requests."""

    verb: str
    key: str
    act: Act
    times: int = ALWAYS
    skip: int = 0


@dataclass(frozen=True)
class Case:
    """Faults, and what a run makes of them.

    `tries`: of the last fault's requests, as the proxy counts them and, where the run fails
    there, as its sentence says. `purged`: so many batches were finished before.
    """

    name: str
    faults: list[On]
    tries: int
    words: str = ""  # none where the run overcomes it
    env: dict[str, str] = field(default_factory=dict)
    purged: int = 0
    mend: Callable[[Place, str], None] = lambda _place, _error: None
    asked: bool = True  # the sentence is of what was asked, not of what was found
    servers: tuple[str, ...] = SERVERS


def remove(place: Place, error: str) -> None:
    """Do as the sentence says: set the object aside that it names."""
    key = error.split(maxsplit=1)[0]
    stored = place.bucket.Object(key)
    place.bucket.Object(f"aside/{uuid.uuid4()}").put(Body=stored.get()["Body"].read())
    stored.delete()


def stop_asking_for_encryption(place: Place, error: str) -> None:
    """Do as the sentence says."""
    assert "turn AUDIT_COLD_SSE off" in error
    place.env["AUDIT_COLD_SSE"] = "false"


def encrypt(place: Place, error: str) -> None:
    """Do as the sentence says: copy objects over themselves, encrypted; and go on asking."""
    assert "copy the object over itself" in error
    place.env["AUDIT_COLD_SSE"] = "true"
    for key in [*place.listing(), *place.checkpoints()]:
        place.bucket.Object(key).copy_from(
            CopySource={"Bucket": place.bucket.name, "Key": key},
            ServerSideEncryption="AES256",
            MetadataDirective="REPLACE",
        )


BUSY = "the service is busy or not up yet: run again later."
FAILED = "the service failed: see its log, and that it has room, and run again."
FULL = "the bucket is full: raise its quota or give the service room, and run again."
CANNOT = "the service cannot do what this software needs"
RIGHTS = "the key may not do this: give it read, write and list on the bucket."
KEYS = "the keys are wrong or may not do this: correct AUDIT_COLD_ACCESS_KEY"
REACH = "see that AUDIT_COLD_ENDPOINT is right and the service is up, and run again."
BITS = "(it broke off); " + REACH
CUT = "(the connection was cut off); " + REACH
SILENT = "2 tries of up to 1 s (silence for that time); " + REACH

CASES = [
    # Refusals
    Case("429", [On("PUT", JSONL, refuse(429, "TooManyRequests"))], 2, BUSY),
    Case("500", [On("PUT", JSONL, refuse(500, "InternalError"))], 2, FAILED),
    Case("501", [On("PUT", JSONL, refuse(501, "NotImplemented"))], 1, CANNOT),
    Case("503", [On("PUT", JSONL, refuse(503, "SlowDown"))], 2, BUSY),
    Case(
        "503 for the second batch",
        [On("PUT", JSONL, refuse(503, "ServiceUnavailable"), skip=1)],
        3,
        "after 2 of 2 tries",
        purged=1,
    ),
    Case(
        "500 with tries as they are by default",
        [On("PUT", MANIFEST, refuse(500, "InternalError"))],
        4,
        "500 InternalError after 4 of 4 tries (it says: Please look into this); " + FAILED,
        env={"AUDIT_COLD_ATTEMPTS": ""},
    ),
    Case("500 to a HEAD", [On("HEAD", JSONL, refuse(500, "x"))], 2, FAILED, servers=ONE),
    Case("503 to a GET", [On("GET", MANIFEST, refuse(503, "SlowDown"))], 2, BUSY, servers=OTHER),
    Case("503 to a LIST", [On("LIST", "", refuse(503, "SlowDown"))], 2, BUSY, servers=ONE),
    Case("403 to PUT alone", [On("PUT", JSONL, refuse(403, "AccessDenied"))], 1, RIGHTS),
    Case(
        "403 to a manifest",
        [On("PUT", MANIFEST, refuse(403, "AccessDenied"))],
        1,
        RIGHTS,
        servers=OTHER,
    ),
    Case("403 to HEAD alone", [On("HEAD", "", refuse(403, "AccessDenied"))], 1, KEYS),
    Case("403 to GET alone", [On("GET", "", refuse(403, "AccessDenied"))], 1, RIGHTS),
    Case("403 to LIST alone", [On("LIST", "", refuse(403, "AccessDenied"))], 1, RIGHTS),
    Case("quota, as Ceph says", [On("PUT", JSONL, refuse(403, "QuotaExceeded"))], 1, FULL),
    Case(
        "quota, as MinIO says",
        [On("PUT", MANIFEST, refuse(400, "XMinioAdminBucketQuotaExceeded"))],
        1,
        FULL,
    ),
    Case(
        "disk full, as MinIO says", [On("PUT", JSONL, refuse(507, "XMinioStorageFull"))], 1, FULL
    ),
    Case(
        "a clock 10 minutes off for a strict service",
        [On("LIST", "", proxies.refuse_skewed(600, tolerated=300))],
        1,
        "403 RequestTimeTooSkewed after 1 of 2 tries; this machine's clock is off: set it by NTP.",
    ),
    # No answer
    Case("reset within a body", [On("PUT", JSONL, proxies.reset_within_request)], 2, CUT),
    Case(
        "reset within a manifest",
        [On("PUT", MANIFEST, proxies.reset_within_request)],
        2,
        CUT,
        servers=ONE,
    ),
    Case("reset within an answer", [On("GET", MANIFEST, proxies.reset_within_answer)], 2, BITS),
    Case("truncated manifest", [On("GET", MANIFEST, proxies.break_off)], 2, BITS),
    Case("truncated object", [On("GET", JSONL, proxies.break_off)], 2, BITS, env=READ),
    Case("truncated list", [On("LIST", "", proxies.break_off)], 2, BITS),
    Case("stalled PUT", [On("PUT", JSONL, proxies.stall)], 2, SILENT, env=SLOW),
    Case("stalled HEAD", [On("HEAD", JSONL, proxies.stall)], 2, SILENT, env=SLOW, servers=ONE),
    Case("stalled GET", [On("GET", MANIFEST, proxies.stall)], 2, SILENT, env=SLOW),
    Case("stalled LIST", [On("LIST", "", proxies.stall)], 2, SILENT, env=SLOW, servers=OTHER),
    Case(
        "an object that trickles",
        [On("GET", MANIFEST, proxies.trickle)],
        2,
        "2 tries of up to 1 s (it comes too slowly); " + REACH,
        env=SLOW,
    ),
    Case("every answer to a PUT lost", [On("PUT", JSONL, proxies.lose_answer)], 2, CUT),
    Case(
        "stored, and called a failure",
        [On("PUT", MANIFEST, refuse_after_storing(500, "InternalError"))],
        2,
        FAILED,
        servers=OTHER,  # the first one names its own success at the second try
    ),
    # The bucket does not hold what was sent
    *(
        Case(
            f"other bytes stored than were sent ({end})",
            [On("PUT", end, proxies.store_other_bytes, times=1)],
            1,
            "holds other bytes than its name says: nothing was deleted; keep that object as "
            "evidence under another name, remove it, and run again.",
            mend=remove,
            asked=False,
        )
        for end in (JSONL, MANIFEST)
    ),
    Case(
        "taken, and not stored",
        [On("PUT", JSONL, proxies.forget, times=1)],
        1,
        "there is no such object, though it was just taken: nothing was deleted; run again",
        asked=False,
    ),
    *(
        Case(
            f"encryption accepted and not applied, then {mend.__name__}",
            [On("PUT", "", drop("x-amz-server-side-encryption"))],
            3,  # the checkpoint at the run's end is the third
            "is stored without the encryption that AUDIT_COLD_SSE asks for: nothing was deleted",
            env=SSE,
            mend=mend,
            asked=False,
            servers=servers,
        )
        for mend, servers in (
            (stop_asking_for_encryption, SERVERS),
            (encrypt, ONE),
        )
    ),
    # What a run overcomes
    Case("one 503", [On("PUT", JSONL, refuse(503, "SlowDown"), times=1)], 3),
    Case("one 500 to a HEAD", [On("HEAD", JSONL, refuse(500, "x"), times=1)], 3, servers=OTHER),
    Case("one reset", [On("PUT", JSONL, proxies.reset_within_request, times=1)], 3),
    Case(
        "one stall",
        [On("PUT", JSONL, proxies.stall, times=1)],
        3,
        env={**SLOW, "AUDIT_COLD_ATTEMPTS": "4"},
    ),
    Case("one answer lost", [On("PUT", JSONL, proxies.lose_answer, times=1)], 3),
    Case("one answer for a manifest lost", [On("PUT", MANIFEST, proxies.lose_answer, times=1)], 3),
    Case(
        "one stored, and called a failure",
        [On("PUT", JSONL, refuse_after_storing(500, "InternalError"), times=1)],
        3,
    ),
    Case("one truncated object", [On("GET", JSONL, proxies.break_off, times=1)], 3, env=READ),
    # Two checkpoints among them: one that waited, and one at the run's end.
    Case("If-None-Match ignored", [On("PUT", "", drop("if-none-match"))], 6),
    Case(
        "an ETag that is not the MD5",  # the objects are read instead
        [
            On("PUT", "", proxies.other_etag),
            On("HEAD", "", proxies.other_etag),
            On("GET", JSONL, proxies.other_etag),
        ],
        2,
    ),
]


# What becomes of them, and the words they get, another case here or one of test_storage.py has.
VARIANTS = {
    "501",
    "503",
    "500 with tries as they are by default",
    "403 to a manifest",
    "403 to HEAD alone",
    "403 to LIST alone",
    "reset within a manifest",
    "truncated list",
    "stalled PUT",
    "stalled LIST",
    "503 to a LIST",
}
assert {case.name for case in CASES} > VARIANTS


def marks(case: Case, server: str) -> list[pytest.MarkDecorator]:
    """Mark as slow: variants, and a second server where it has no part in what the proxy does."""
    again = case.servers == SERVERS and server in OTHER and case.words and case.asked
    return [pytest.mark.slow] if again or case.name in VARIANTS else []


@pytest.mark.parametrize(
    ("case", "place"),
    [
        pytest.param(case, server, id=f"{case.name} - {server}", marks=marks(case, server))
        for case in CASES
        for server in case.servers
    ],
    indirect=["place"],
)
def test_a_fault_costs_no_event_and_is_over_when_it_is_over(place: Place, case: Case) -> None:
    usual = dict(place.env)
    place.env.update(case.env)
    for fault in case.faults:
        place.proxy.fault(fault.act, fault.verb, fault.key, times=fault.times, skip=fault.skip)

    answer = place.archive()
    last = case.faults[-1]
    assert place.proxy.count(last.verb, last.key) == case.tries
    if not case.words:
        assert (answer["outcome"], answer["exit"], answer["error"]) == ("archived", 0, None)
        place.assert_archived()
        return

    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    error = answer["error"]
    assert case.words in error
    assert_one_sentence(error, place.env)
    if case.asked:
        most = place.env["AUDIT_COLD_ATTEMPTS"] or "4"
        assert error.startswith(f"{last.verb} {place.prefix}")
        assert f"{last.key} at {place.proxy.endpoint}, bucket 'dezky-audit': " in error
        assert f" after {case.tries - last.skip} of {most} tries" in error
    place.assert_whole(case.purged)

    place.proxy.lift()
    place.env = usual
    case.mend(place, error)
    place.assert_the_next_run_goes_on()


def test_a_name_that_is_taken_is_kept_or_written_anew_and_nothing_is_lost(place: Place) -> None:
    """Where If-None-Match is ignored, what is in the way is gone; else it is named and kept."""
    place.proxy.fault(refuse(503, "SlowDown"), "PUT", JSONL)
    place.archive()
    place.proxy.lift()
    ((key,),) = place.rows("SELECT jsonl_key FROM audit_archivebatch")
    place.bucket.Object(key).put(Body=b"in the way")
    if place.server.name == "juicefs":
        place.assert_the_next_run_goes_on()
        return
    answer = place.archive()
    assert answer["error"].startswith(f"{key} has 10 bytes in the bucket")
    assert_one_sentence(answer["error"], place.env)
    place.assert_whole()
    assert place.objects()[key] == b"in the way"
    remove(place, answer["error"])
    place.assert_the_next_run_goes_on()


# What the server does itself ---------------------------------------------------------------


def fails(place: Place, error: str, *words: str) -> None:
    """See how a run has failed."""
    for word in words:
        assert word in error
    assert_one_sentence(error, place.env)
    place.assert_whole()


def test_a_missing_bucket_is_named(place: Place) -> None:
    usual = place.env["AUDIT_COLD_BUCKET"]
    place.env["AUDIT_COLD_BUCKET"] = missing = f"missing-{uuid.uuid4()}"
    answer = place.archive()
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    assert answer["error"] == (
        f"LIST {place.prefix} at {place.proxy.endpoint}, bucket '{missing}': refused with 404 "
        "NoSuchBucket after 1 of 2 tries; the bucket does not exist: create it, or correct "
        "AUDIT_COLD_BUCKET."
    )
    place.assert_whole()
    place.env["AUDIT_COLD_BUCKET"] = usual
    place.assert_the_next_run_goes_on()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ACCESS", "403 InvalidAccessKeyId after 1 of 2 tries; the access key is not known"),
        ("SECRET", "403 SignatureDoesNotMatch after 1 of 2 tries; the secret key is wrong"),
    ],
)
def test_keys_that_are_refused_are_named(place: Place, name: str, words: str) -> None:
    usual = dict(place.env)
    variable = f"AUDIT_COLD_{name}_KEY"
    place.env.update({"AUDIT_COLD_ENDPOINT": place.endpoint, variable: "not-the-right-one"})
    answer = place.archive()
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    fails(place, answer["error"], f"LIST {place.prefix} at", words, f": correct {variable}.")
    place.env = usual
    place.assert_the_next_run_goes_on()


@pytest.mark.parametrize("place", ONE, indirect=True)
def test_a_server_that_is_not_there_is_named(place: Place) -> None:
    place.env["AUDIT_COLD_ENDPOINT"] = "http://127.0.0.1:9"
    answer = place.archive()
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    fails(place, answer["error"], "after 2 of 2 tries of up to 60 s (no connection); " + REACH)
    place.env["AUDIT_COLD_ENDPOINT"] = place.proxy.endpoint
    place.assert_the_next_run_goes_on()


@pytest.mark.parametrize("place", ["juicefs"], indirect=True)
def test_a_service_that_cannot_encrypt_is_named_with_the_setting_that_asks_it_to(
    place: Place,
) -> None:
    place.env["AUDIT_COLD_SSE"] = "true"
    answer = place.archive()
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    ((key,),) = place.rows("SELECT jsonl_key FROM audit_archivebatch")
    assert answer["error"] == (
        f"PUT {key} at {place.proxy.endpoint}, bucket 'dezky-audit': refused with 501 "
        "NotImplemented after 1 of 2 tries (it says: A header you provided implies functionality "
        "that is not implemented); AUDIT_COLD_SSE is on, and the service cannot encrypt: turn "
        "AUDIT_COLD_SSE off, or give the service a key management, and run again."
    )
    assert place.proxy.count("PUT") == 1
    place.assert_whole()
    assert place.objects() == {}
    place.env["AUDIT_COLD_SSE"] = "false"
    place.assert_the_next_run_goes_on()


@pytest.mark.parametrize("place", ["seaweedfs"], indirect=True)
def test_a_service_that_can_encrypt_does(place: Place) -> None:
    place.env["AUDIT_COLD_SSE"] = "true"
    place.assert_the_next_run_goes_on()
    assert {place.bucket.Object(key).server_side_encryption for key in place.listing()} == {
        "AES256"
    }


def test_a_bucket_that_is_full_is_named(place: Place) -> None:
    """Both servers call it an internal error; one of them says a word more."""
    with place.server.full("dezky-audit", place.prefix):
        answer = place.archive()
        assert (answer["outcome"], answer["exit"]) == ("failed", 1)
        words = FULL if place.server.name == "juicefs" else FAILED
        fails(place, answer["error"], "500 InternalError after 2 of 2 tries (it says: ", words)
        assert place.proxy.count("PUT", JSONL) == 2
    place.assert_the_next_run_goes_on()


@pytest.mark.parametrize("minutes", [10, -20])
def test_a_clock_that_is_off_is_named_where_the_server_minds(place: Place, minutes: int) -> None:
    """Both servers, as S3 itself does, put up with a quarter of an hour."""
    place.env["AUDIT_COLD_ENDPOINT"] = place.endpoint  # the proxy would sign by the right clock
    run = place.driver("archive", f"--clock={minutes * 60}")
    last = run.finish()[-1]
    if abs(minutes) < 15:
        assert last == "outcome archived: None"
        place.assert_archived()
        return
    outcome, _, error = last.removeprefix("outcome ").partition(": ")
    assert outcome == "failed"
    words = "403 RequestTimeTooSkewed after 1 of 2 tries; this machine's clock is off: set it"
    fails(place, error, f"LIST {place.prefix} at ", words)
    place.assert_the_next_run_goes_on()
