"""Foundations that every package may import: errors, the request context, addresses, confinement."""
