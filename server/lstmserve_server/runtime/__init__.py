"""Which call is computed when, and where."""
