"""Upstream's library, as far as the recorded test modules use it, made of our classes.

`api` and `util` are for stages, and stand alone as nothing of ours is in their sandbox; the rest
is for host services.
"""
