"""The tenants app."""

from django.apps import AppConfig


class TenantsConfig(AppConfig):
    """Who the platform's customers are; knows nothing of the audit log."""

    name = "tenants"
