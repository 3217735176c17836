"""Measurement of a server on this machine."""
