"""Several server processes behind one port, under a supervisor."""
