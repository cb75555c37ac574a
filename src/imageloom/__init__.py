"""Imageloom: a self-hosted Compute API for durable image generation on a pool of GPU workers."""

__version__ = "0.1.0"
