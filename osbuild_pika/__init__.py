"""Builds Incus images the osbuild way and always tells the truth about it."""
