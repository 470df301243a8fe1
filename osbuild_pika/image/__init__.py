"""Front ends: from what people write to a manifest.

reading.py   YAML with the place of every value, checked against a JSON schema
definition.py, rules.py   image.yaml -> Definition, or all that is wrong with it
values.py    what a Definition holds
kickstart.py a kickstart -> Definition and a report, with
  kickstart_text.py      the text, includes, commands and sections
  kickstart_rules.py     what is honoured, ignored, refused
  kickstart_commands.py, kickstart_network.py, kickstart_packages.py   what is honoured
  kickstart_draft.py     the document that grows, kickstart_report.py   what is told
local.py     what a definition takes from its directory, and hashed passwords
mirrors.py   where a distribution's packages come from
apt.py       apt with a state of its own, and its complaints in one line
debian.py    Definition -> Lock: which packages exactly
lock.py      image.lock.json, and whether it still answers a definition
manifest.py  (Definition, Lock, Local), of each generation -> manifest
outputs.py   ... and the stages that make an image's files of the tree
"""
