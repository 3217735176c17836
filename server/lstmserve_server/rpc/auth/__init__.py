"""Authentication and per-caller policy."""
