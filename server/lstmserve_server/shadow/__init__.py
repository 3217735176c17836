"""Shadow mode: repeats finished calls in the real Keras layer, in another process, and reports differences."""
