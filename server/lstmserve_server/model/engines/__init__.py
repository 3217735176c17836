"""Who computes the LSTM layers of a model: NumPy, which is the reference, or another library that is checked against it."""
