"""From a parsed configuration and its weights to a model specification."""
