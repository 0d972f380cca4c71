"""The console is the whole web surface for now; the root leads to it."""

from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

admin.site.site_header = "Dezky audit"
admin.site.site_title = "Dezky audit"
admin.site.index_title = "Console"

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
]
