"""The command line `lstmserve-client`, which needs the extra `cli`."""
