"""The contract, generated from `proto/lstmserve/v1` by `make proto`."""
