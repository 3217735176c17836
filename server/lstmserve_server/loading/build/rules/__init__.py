"""The rules by which configurations of layers are read, in modules that are called as those in `layers`."""
