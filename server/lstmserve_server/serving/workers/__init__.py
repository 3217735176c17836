"""Several server processes after one port, under a supervisor."""
