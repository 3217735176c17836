"""The formats in which Keras saves models and weights."""
