"""Benchmarks of the service and of its alternatives, in one run on one machine."""
