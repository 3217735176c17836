"""The process that imports Keras and answers as it does. Started by `shadow.process`; nothing imports it."""
