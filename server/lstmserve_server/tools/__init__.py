"""Offline commands: inspect, verify, replay, bench."""
