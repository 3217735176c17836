"""Arrays of weights in memory, and the limits on what a file may ask for."""
