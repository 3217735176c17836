"""What strangers may send, by the million: valid things, damaged at random."""
