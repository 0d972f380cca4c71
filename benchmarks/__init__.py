"""Benchmarks, run by hand: timing never decides a test."""
