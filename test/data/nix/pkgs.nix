# As much of nixpkgs as nix/incus uses, made of this machine's programs instead of built ones.
# programs: a directory with python3/bin, qemu-utils/bin, systemd/bin and stdenv/bin, where only
# the last is on every builder's PATH.
{ programs }:

let
  pkgs = {
    python3 = "${programs}/python3";
    qemu-utils = "${programs}/qemu-utils";
    stdenv.hostPlatform.uname.processor = "x86_64";

    runCommand = name: attributes: buildCommand: derivation ({
      inherit name buildCommand;
      system = builtins.currentSystem;
      builder = "${programs}/stdenv/bin/bash";
      args = [ "-euo" "pipefail" "-c" ''eval "$buildCommand"'' ];
      PATH = builtins.concatStringsSep ":" (map (package: "${package}/bin")
        (attributes.nativeBuildInputs or [ ] ++ [ "${programs}/stdenv" ]));
    } // attributes);

    writeFile = name: mode: destination: text: pkgs.runCommand name
      { inherit destination text mode; passAsFile = [ "text" ]; }
      ''install -D -m "$mode" "$textPath" "$out$destination"'';
    writeScriptBin = name: pkgs.writeFile name "0755" "/bin/${name}";
    writeShellScript = name: text:
      pkgs.writeFile name "0755" "" "#!${programs}/stdenv/bin/bash\n${text}";
    writeTextDir = path: pkgs.writeFile (baseNameOf path) "0644" "/${path}";
  };
in
pkgs
