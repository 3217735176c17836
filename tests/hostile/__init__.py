"""What strangers may send."""
