"""What the service costs beside everything that somebody might pick instead, measured in one run on one machine."""
