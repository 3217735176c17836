"""StreamSteps: the sans-I/O session, its codec and its server."""
