"""Incus: images imported, instances started and waited for.

client.py      the socket, requests, operations; every failure is one line of ours
images.py      import, aliases, export; parts.py writes what is exported
instances.py   create, start, stop, delete; a guest's files
local.py       image files of this host: which there are, and their fingerprint
waiting.py     has the guest come to the wanted state?
boots.py       what is kept of a boot in the run that made its image
launching.py   all of it in a row
"""
