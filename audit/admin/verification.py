"""Verifications in the console."""

from __future__ import annotations

from datetime import UTC, datetime

from django.contrib import admin
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from audit.models import VerificationRun
from audit.verifications import dead, first_problem, problem_count, problems_of
from audit.wording import count, tiers_line, verified_line_of

from .at_work import AtWorkAdmin
from .readonly import lines, moment
from .verify_now import verify_now

PROBLEM_CHARACTERS = 70
TALLIES = ("manifests", "objects", "checkpoints")


@admin.register(VerificationRun)
class VerificationRunAdmin(AtWorkAdmin):
    """The verifications, newest first."""

    gone = (
        "It says that it is running, but its process is gone, or it began more than a day ago: "
        "the next verification closes it, and nothing can be said about the log by it."
    )

    list_display = (
        "number",
        "found",
        "started",
        "much",
        "short_problem",
        "requested_by",
        "trigger",
        "looked_at",
        "took",
    )
    list_filter = ("outcome", "level", "trigger", "started_at")
    list_per_page = 25  # each row brings its report along
    search_fields = ("requested_by", "requested_from", "report")
    search_help_text = "A part of a name, or of anything that a report says."
    change_list_template = "admin/audit/verification_list.html"
    fieldsets = (
        (None, {"fields": ("result", "found", "problems", "note_lines", "check_lines")}),
        ("Looked at", {"fields": ("much", "limits", "looked_at", "seqs", "tallies", "root")}),
        ("Asked for", {"fields": ("trigger", "requested_by", "came_from", "holder")}),
        ("When", {"fields": ("started", "finished", "took")}),
        ("Tiers", {"fields": ("tiers",)}),
    )

    def get_urls(self) -> list[URLPattern]:
        """Add the page that verifies, which is no page of a verification: there is none yet."""
        view = self.admin_site.admin_view(verify_now)
        return [path("verify-now/", view, name="audit_verify_now"), *super().get_urls()]

    def is_at_work(self, row: VerificationRun) -> bool:
        """Say whether its process is there."""
        return row not in dead(datetime.now(UTC))

    def progress(self, row: VerificationRun) -> str:
        """Return nothing: how much it has looked at is known once it has ended."""
        return ""

    @admin.display(description="verification", ordering="id")
    def number(self, run: VerificationRun) -> str:
        """Return its number."""
        return f"verification {run.pk}"

    @admin.display(description="result")
    def result(self, run: VerificationRun) -> str:
        """Return what it found, in one line."""
        return verified_line_of(run)

    @admin.display(description="level", ordering="level")
    def much(self, run: VerificationRun) -> str:
        """Return how much was read."""
        return run.level

    @admin.display(description="limits")
    def limits(self, run: VerificationRun) -> str:
        """Return how far it was to look, where that was said."""
        if run.batch_seq is None:
            return "none: the whole log"
        return f"the batch that holds seq {run.batch_seq:,}, and the checkpoints"

    @admin.display(description="events", ordering="events")
    def looked_at(self, run: VerificationRun) -> str:
        """Return how many events were verified."""
        return f"{run.events:,}"

    @admin.display(description="seqs")
    def seqs(self, run: VerificationRun) -> str:
        """Return the range that was verified."""
        first, last = run.report.get("first_seq"), run.report.get("last_seq")
        return f"{first:,}–{last:,}" if first and last else "–"

    @admin.display(description="valid")
    def tallies(self, run: VerificationRun) -> SafeString:
        """Return how many of what there are, and how many of them are good."""
        return lines(
            f"{tally['valid']:,} of {count(tally['total'], name[:-1])}"
            for name in TALLIES
            if (tally := run.report.get(name))
        )

    @admin.display(description="root")
    def root(self, run: VerificationRun) -> str:
        """Return the root over all that was verified."""
        return run.report.get("root") or "not known"

    @admin.display(description="tier boundary")
    def tiers(self, run: VerificationRun) -> str:
        """Return where the tiers met."""
        report = run.report
        if "highest_archived_seq" not in report:
            return "–"
        line = tiers_line(report["highest_archived_seq"], report.get("oldest_hot_seq"))
        return line.partition(": ")[2]

    @admin.display(description="problems")
    def short_problem(self, run: VerificationRun) -> str:
        """Return how many there were, and the beginning of the first one."""
        problems = problem_count(run)
        if not problems and not run.report.get("error"):
            return "–"
        text = Truncator(first_problem(run, place=False)).chars(PROBLEM_CHARACTERS)
        return f"{problems:,}: {text}" if problems else text

    @admin.display(description="problems")
    def problems(self, run: VerificationRun) -> SafeString | str:
        """Return each on a line of its own: kind, seq, object, and what to do."""
        told = problems_of(run)
        parts = [
            format_html(
                "<li><strong>{}</strong>{}{}<br>{}</li>",
                problem["kind"],
                f", seq {problem['seq']:,}" if problem["seq"] is not None else "",
                format_html(", <code>{}</code>", problem["object"]) if problem["object"] else "",
                problem["message"],
            )
            for problem in told
        ]
        if more := problem_count(run) - len(told):
            parts.append(format_html("<li>and {} more, which were only counted</li>", f"{more:,}"))
        if error := run.report.get("error"):
            parts.append(format_html("<li>{}</li>", error))
        if not parts:
            return "none" if run.outcome else "–"
        items = format_html_join("", "{}", ((part,) for part in parts))
        return format_html('<ul class="audit-problems">{}</ul>', items)

    @admin.display(description="notes")
    def note_lines(self, run: VerificationRun) -> SafeString:
        """Return the notes, a line each."""
        more = run.report.get("more_notes")
        counted = [f"and {more:,} more, which were only counted"] if more else []
        return lines([*run.report.get("notes", []), *counted])

    @admin.display(description="system checks")
    def check_lines(self, run: VerificationRun) -> SafeString:
        """Return what is misconfigured, a line each."""
        return lines(run.report.get("checks", []))

    @admin.display(description="requested from")
    def came_from(self, run: VerificationRun) -> str:
        """Return the machine or the address that it was asked for from."""
        return run.requested_from or "–"

    @admin.display(description="started (UTC)", ordering="started_at")
    def started(self, run: VerificationRun) -> str:
        """Return when it began."""
        return moment(run.started_at)

    @admin.display(description="finished (UTC)")
    def finished(self, run: VerificationRun) -> str:
        """Return when it ended."""
        return moment(run.finished_at)

    @admin.display(description="took")
    def took(self, run: VerificationRun) -> str:
        """Return how long it took."""
        return f"{run.duration.total_seconds():,.1f} s" if run.duration else "–"
