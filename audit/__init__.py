"""The audit log: events in, chained, archived, verified."""
