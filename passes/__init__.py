"""prunec."""
