"""The reference process, which imports Keras. Started by `shadow.reference_process`; nothing imports it."""
