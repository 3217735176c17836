"""Comparison of a model file with Keras, offline."""
