"""Streams over real gRPC."""
