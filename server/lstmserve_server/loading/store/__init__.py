"""Arrays of weights in memory, and the limits on what loading a file may allocate."""
