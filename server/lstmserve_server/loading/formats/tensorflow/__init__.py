"""Reads TensorFlow's own formats without TensorFlow: checkpoints and SavedModels."""
