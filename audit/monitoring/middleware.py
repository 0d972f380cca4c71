"""django-prometheus's count of requests, with no label that a caller can choose."""

from __future__ import annotations

from typing import Any

from django_prometheus.middleware import PrometheusAfterMiddleware


class AfterMiddleware(PrometheusAfterMiddleware):  # type: ignore[misc]  # it has no type hints
    """Labels are views' names, never paths; and methods that exist.

    django-prometheus itself takes the method of a request's latency as it comes: whoever sends
    made-up ones would make a new series with each.
    """

    def label_metric(self, metric: Any, request: Any, response: Any = None, **labels: Any) -> Any:
        """Return a metric with its labels."""
        if "method" in labels:
            labels["method"] = self._method(request)
        return super().label_metric(metric, request, response, **labels)
