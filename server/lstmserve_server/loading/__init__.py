"""Loads untrusted Keras files into checked specifications, without TensorFlow and without running anything in them.

`sandbox` is the entrance: it runs `reader` in another process. Only that process imports h5py.
"""
