"""The container images: built, run as docs/container.md says, and looked into. `make container-test` runs it all."""
