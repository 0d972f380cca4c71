"""The HTTP interface as an app of its own: it has tokens to keep."""

from django.apps import AppConfig


class ApiConfig(AppConfig):
    """Tokens, and what is served to those who hold them."""

    name = "audit.api"
    label = "audit_api"
    verbose_name = "Audit log over HTTP"
