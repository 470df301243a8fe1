# guest-image-package.nix, with its settings as JSON.
{ source, programs, settings }:

import (source + "/nix/incus/guest-image-package.nix")
{ pkgs = import ./pkgs.nix { inherit programs; }; }
  (builtins.fromJSON settings)
