"""What runs inside the sandbox: needs lifecycle.py, wire.py and Python 3.9, and nothing else."""
