"""What the service costs alongside everything that someone might pick instead, measured in one run on one machine."""
