"""The addresses of the HTTP interface."""

from django.urls import path

from .verify import Verification, Verify
from .views import Archives, Run, RunNow

urlpatterns = [
    path("archives", Archives.as_view(), name="audit-archives"),
    path("archives/runs/<int:number>", Run.as_view(), name="audit-archive-run"),
    path("archive/run", RunNow.as_view(), name="audit-archive-run-now"),
    path("verify", Verify.as_view(), name="audit-verify"),
    path("verify/runs/<int:number>", Verification.as_view(), name="audit-verification"),
]
