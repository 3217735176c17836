"""Engines that compute the LSTM layers: NumPy, the reference, or another library that is checked against it."""
