"""The service: loads the weights of Keras LSTM models and answers Step and Forward, computed with NumPy."""
