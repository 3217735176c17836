"""Protobuf messages to arrays and back."""
