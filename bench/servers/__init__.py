"""The contenders' servers: each a program that runs in an environment of its own, with nothing of the service."""
