"""The server: loads the weights of Keras LSTM models and answers Step and Forward, computed by NumPy."""
