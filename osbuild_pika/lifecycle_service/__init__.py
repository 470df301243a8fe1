"""The lifecycle service: a host service that keeps a run's artifacts outside the sandbox.

`authority.py` says who may say what, `verdict.py` what a run's end was, `processes.py` holds the
processes whose end matters, `opening.py` is the socket of one stage, and `service.py` the loop.
The protocol is told in docs/reference/lifecycle-service.md.
"""
