"""Keras configurations, parsed and checked."""
