"""What each step of the platform does: the steps, their configuration and the inpainting library."""

__version__ = "0.1.0"
