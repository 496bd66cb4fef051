"""The domain library: knows images, masks and networks, and nothing of platforms."""
