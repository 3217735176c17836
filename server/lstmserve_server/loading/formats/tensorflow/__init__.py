"""Models in TensorFlow's own formats, read without TensorFlow: checkpoints, and SavedModels."""
