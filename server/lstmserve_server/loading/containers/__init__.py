"""Files and folders that hold configurations and weights: HDF5, zip archives, JSON."""
