"""The embedded engine: builds osbuild manifests of format 2 in user namespaces.

A manifest becomes values:
modules.py    module directories: what a stage, device, input, mount or source is, its schema
manifest.py   the values of a manifest, their ids, and what `--inspect` prints
load.py       bytes -> Manifest, or all that is wrong with it at once
resolve.py    names in a manifest -> what they stand for
known.py      manifests that need not be checked again
schema.py     a document against the format and against the schemas of its modules
rules.py      what is refused of what shall be built, though upstream lets it pass
plan.py       what runs, in which order, what is cached, and why not
reasons.py    what is different from an earlier run, in words; plan.json
hostroot.py   digests of what ids do not cover: modules, the host as a build root

Trees are kept:
store.py      finished stages, kept as layers: look, pin, place, collect
layers.py     what a layer says of itself, when it is damaged, which ones go first
fetched.py    what sources have fetched: held while a build reads it, counted, collected
scratch.py    a run's part of the store: trees to work in and to look at, commits
overlay.py    trees as overlay mounts        copytree.py  trees as copies
settle.py     a layer's times, its sync and its size
export.py     trees and files that leave the store
disk.py       durable names, exchange, safe deletion

One stage runs:
namespace.py  subordinate ids, the user namespace, private mounts
processes.py  signals to the children of a process
area.py       all that one stage may see, mounted below one directory
buildroot.py  the /etc and the Python modules of a build root
sandbox.py    bubblewrap's command line
running.py    runs one stage, with its output, limits and end
stageapi.py   the socket on which a stage says why it failed
stagework.py  its devices, inputs, mounts and arguments
storeapi.py   the socket on which inputs ask for trees

A build is a process of its own:
order.py      what it is asked for
owner.py      what it tells the lifecycle service
records.py    what it tells whoever asked for it
build.py      sources, pipelines, exports, the end
health.py     what this host has of what a build needs
chores.py     what is done to a store beside builds: collect, and try what this host can
"""
