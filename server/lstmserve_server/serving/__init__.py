"""The running process: settings, lifecycle, TLS, workers."""
