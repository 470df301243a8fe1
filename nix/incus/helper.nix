# The command `pika-cloud-lifecycle`: a guest tells its Incus host how far it is.
{ pkgs, python3 ? pkgs.python3 }:

let
  # Only the first line is a template. The rest is Python, which may well name
  # the placeholder without asking for a path in its place.
  placeholder = "#!@python3@";
  source = builtins.readFile ./pika-cloud-lifecycle.py.in;
  length = builtins.stringLength placeholder;
  start = builtins.substring 0 length source;
  rest = builtins.substring length (builtins.stringLength source) source;
in
if start == placeholder
then pkgs.writeScriptBin "pika-cloud-lifecycle" "#!${python3}/bin/python3${rest}"
else throw "pika-cloud-lifecycle.py.in: the first line must begin with ${placeholder}"
