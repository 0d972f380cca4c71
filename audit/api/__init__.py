"""The archive over HTTP: JSON in, JSON out."""
