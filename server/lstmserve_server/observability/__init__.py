"""Metrics, traces, logs, and the admin server that exposes them."""
