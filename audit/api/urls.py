"""The addresses of the HTTP interface."""

from django.urls import path

from .views import Archives, Run, RunNow

urlpatterns = [
    path("archives", Archives.as_view(), name="audit-archives"),
    path("archives/runs/<int:number>", Run.as_view(), name="audit-archive-run"),
    path("archive/run", RunNow.as_view(), name="audit-archive-run-now"),
]
