"""The Django project: settings and entrances."""
