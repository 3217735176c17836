"""The status page: what operators see in a browser."""
