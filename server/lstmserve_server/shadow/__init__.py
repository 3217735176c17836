"""Shadow mode: finished calls, answered once more by the real Keras layer in another process, and what differs."""
