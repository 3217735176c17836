"""Files of Keras to checked descriptions, without TensorFlow, and without running or opening anything they name.

`sandbox` is the way in: it has `reader` parse a file in another process. Only that process imports h5py.
"""
