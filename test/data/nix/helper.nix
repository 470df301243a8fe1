# The helper.nix of a source tree.
{ source, programs }:

import (source + "/nix/incus/helper.nix") { pkgs = import ./pkgs.nix { inherit programs; }; }
