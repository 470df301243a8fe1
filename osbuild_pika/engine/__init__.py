"""The embedded engine: builds osbuild manifests of format 2 in user namespaces.

modules.py    module directories: what a stage, device, input, mount or source is, its schema
manifest.py   the values of a manifest, their ids, and what `--inspect` prints
load.py       bytes -> Manifest, or all that is wrong with it at once
resolve.py    names in a manifest -> what they stand for
schema.py     a document against the format and against the schemas of its modules
rules.py      what is refused of what shall be built, though upstream lets it pass
namespace.py  subordinate ids, the user namespace, private mounts
area.py       all that one stage may see, mounted below one directory
buildroot.py  the /etc and the Python modules of a build root
sandbox.py    bubblewrap's command line
running.py    runs one stage, with its output, limits and end
stageapi.py   the socket on which a stage says why it failed
libc.py       the system calls that Python 3.11 does not have
"""
