"""Tests of the project's settings and of what it is deployed with."""
