"""The embedded engine: runs osbuild manifests of format 2.

modules.py   module directories: what a stage, device, input, mount or source is, its schema
manifest.py  the values of a manifest, their ids, and what `--inspect` prints
load.py      bytes -> Manifest, or all that is wrong with it at once
resolve.py   names in a manifest -> what they stand for
schema.py    a document against the format and against the schemas of its modules
rules.py     what is refused of what shall be built, though upstream lets it pass
"""
