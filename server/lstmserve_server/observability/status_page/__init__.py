"""What people see at the port for operators: a page, and the figures that it shows."""
