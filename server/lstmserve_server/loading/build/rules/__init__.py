"""Rules that turn the configuration of a layer into a plan; the modules mirror `model.layers`."""
