"""What earlier henges made, kept so that today's is tried on it."""
