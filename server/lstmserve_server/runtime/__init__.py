"""Schedules, batches and admits calls."""
