"""The build process: `python3 -m osbuild_pika.engine RECORDS_FD`, with an order on its input.

It is a process of its own, so that nothing of it is left however it ends, and its caller never
changes namespaces. Its exit status is the build's. `python3 -m osbuild_pika.engine chore` does
one of the chores of chores.py in the same way.
"""

import gc
import sys

if __name__ == "__main__":
    gc.disable()  # until all modules are there: they stay, but each few of them would be looked at
    from osbuild_pika.engine import entry

    status = entry.main()
    gc.freeze()  # the exit's collections need not look at what ends with the process
    sys.exit(status)
