"""Make a believable history: `manage.py demo_events`."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from tqdm import tqdm

from audit import ingest, log
from audit.format.errors import AuditError
from audit.format.record import VERSION, format_time
from audit.log import Draft
from audit.management.entrance import positive
from tenants.models import Tenant

EVENTS_A_DELIVERY = 25
MAX_DAYS = 36_500
DEMO_SCOPE = "demo"
COMPANIES = [
    "Alder",
    "Birch",
    "Cedar",
    "Elder",
    "Fir",
    "Hazel",
    "Juniper",
    "Larch",
    "Maple",
    "Oak",
    "Pine",
    "Rowan",
]
PEOPLE = [
    "ada.lind",
    "bela.kovacs",
    "chiara.ricci",
    "dries.maes",
    "eva.novak",
    "finn.berg",
    "greta.holm",
    "hugo.silva",
    "ines.costa",
    "jan.kowalski",
    "kaisa.virtanen",
    "liam.byrne",
    "mila.horvat",
    "noor.devries",
    "olga.petrova",
]
FILES = ["budget.ods", "minutes.md", "contract.pdf", "roadmap.odp", "photo.jpg", "invoices.zip"]
AGENTS = ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "rclone/1.70")

# (weight, source, action, outcome): how often what happens.
KINDS = (
    (18, "authentik", "login", "success"),
    (3, "authentik", "login_failed", "failure"),
    (9, "authentik", "authorize_application", "success"),
    (6, "authentik", "logout", "success"),
    (1, "authentik", "password_set", "success"),
    (20, "stalwart", "auth.success", "success"),
    (4, "stalwart", "auth.failed", "failure"),
    (14, "stalwart", "message-ingest.ham", "success"),
    (10, "stalwart", "delivery.delivered", "success"),
    (14, "ocis", "file_read", "success"),
    (8, "ocis", "file_create", "success"),
    (3, "ocis", "file_delete", "success"),
    (3, "ocis", "file_shared", "success"),
    (1, "platform", "user_invited", "success"),
    (1, "platform", "quota_changed", "success"),
)


class Command(BaseCommand):
    """Fills an empty log, so that there is something older than the retention window."""

    help = "Append a made-up history of N events over the last D days to an empty log."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the documented options."""
        parser.add_argument("--count", type=positive, default=20_000, metavar="N")
        parser.add_argument("--days", type=positive, default=180, metavar="D")
        parser.add_argument("--tenants", type=positive, default=4, metavar="T")
        parser.add_argument("--seed", type=int, default=1, help="another seed, another history")
        parser.add_argument(
            "--if-empty", action="store_true", help="do nothing, and succeed, where events exist"
        )

    def handle(
        self,
        *args: Any,
        count: int,
        days: int,
        tenants: int,
        seed: int,
        if_empty: bool,
        **options: Any,
    ) -> None:
        """Make the history."""
        if tenants > len(COMPANIES):
            raise CommandError(f"At most {len(COMPANIES)} tenants can be made up.", returncode=2)
        if days > MAX_DAYS:
            raise CommandError(f"At most {MAX_DAYS:,} days can be made up.", returncode=2)
        try:
            head = log.current_state().head_seq
            if head:
                text = f"The log is not empty, it ends at seq {head:,}: no demo events were added."
                if not if_empty:
                    raise CommandError(text)
                self.stdout.write(text)
                return
            slugs = list(_make_tenants(tenants))
            appended = 0
            with tqdm(total=count, unit=" events", leave=False, disable=None) as bar:
                for recorded_at, drafts in _history(random.Random(seed), slugs, count, days):  # noqa: S311  # made-up events need no secrecy
                    appended += len(log.append(drafts, now=recorded_at))
                    bar.update(len(drafts))
        except AuditError as error:
            raise CommandError(str(error)) from None
        except DatabaseError as error:
            raise CommandError(log.explain(error)) from None
        self.stdout.write(
            f"{appended:,} demo events of {len(slugs)} tenants over {days} days appended"
        )


def _make_tenants(number: int) -> Iterator[str]:
    for company in COMPANIES[:number]:
        slug = company.lower()
        Tenant.objects.get_or_create(
            slug=slug,
            defaults={
                "name": f"{company} GmbH",
                "subdomain": slug,
                "mail_domain": f"{slug}.example",
            },
        )
        yield slug


def _history(
    chance: random.Random, slugs: list[str], count: int, days: int
) -> Iterator[tuple[datetime, list[Draft]]]:
    """Yield deliveries: the time they were recorded at and their events, oldest first."""
    end = datetime.now(UTC)
    span = timedelta(days=days).total_seconds()
    times = sorted(end - timedelta(seconds=chance.random() * span) for _ in range(count))
    weights = [kind[0] for kind in KINDS]
    for at in range(0, count, EVENTS_A_DELIVERY):
        chunk = times[at : at + EVENTS_A_DELIVERY]
        kinds = chance.choices(KINDS, weights, k=len(chunk))
        drafts = [
            _draft(chance, chance.choice(slugs), moment, kind[1], kind[2], kind[3])
            for moment, kind in zip(chunk, kinds, strict=True)
        ]
        yield chunk[-1], drafts


def _draft(
    chance: random.Random, tenant: str, moment: datetime, source: str, action: str, outcome: str
) -> Draft:
    person = chance.choice(PEOPLE)
    address = f"{person}@{tenant}.example"
    ip = f"192.0.2.{chance.randrange(1, 255)}"  # RFC 5737: for documentation only
    file = chance.choice(FILES)
    event_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    by_source: dict[str, dict[str, Any]] = {
        "authentik": {
            "http_request": {"method": "POST", "path": "/api/v3/flows/executor/"},
            "user_agent": chance.choice(AGENTS),
        },
        "stalwart": {"accountName": address, "remoteIp": ip, "listenerId": "imaps"},
        "ocis": {"Path": f"./{file}", "App": "admin_audit"},
        "platform": {"by": "support"},
    }
    target = {"id": "", "name": "", "type": ""}
    if source == "ocis":
        target = {"id": event_id[:8], "name": file, "type": "file"}
    elif source == "stalwart" and "." in action and not action.startswith("auth"):
        target = {"id": "", "name": address, "type": "mailbox"}
    event = {
        "action": action,
        "actor": {"id": f"{tenant}/{person}", "ip": ip, "name": address},
        "data": by_source[source],
        "external_id": event_id,
        "occurred_at": format_time(moment),
        "outcome": outcome,
        "source": source,
        "target": target,
        "tenant": tenant,
        "v": VERSION,
    }
    return ingest.draft(event, DEMO_SCOPE)
