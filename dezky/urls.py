"""The console, to which the root leads, the archive over HTTP, and what machines ask."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

admin.site.site_header = "Dezky audit"
admin.site.site_title = "Dezky audit"
admin.site.index_title = "Console"

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("audit/", include("audit.api.urls")),
    path("", include("audit.monitoring.urls")),
]
