# As much of NixOS as module.nix defines: what it sets is checked like any other option, and ends
# up in the files that NixOS would write.
{ source, programs, settings }:

let
  pkgs = import ./pkgs.nix { inherit programs; };
  lib = import ./lib.nix;
  inherit (lib) mkOption types;

  option = type: default: mkOption { inherit type default; description = "as in NixOS"; };
  names = option (types.listOf types.str) [ ];
  service = {
    description = option types.str "";
    wantedBy = names;
    before = names;
    after = names;
    bindsTo = names;
    restartIfChanged = option types.bool true;
    unitConfig = option (types.attrsOf types.anything) { };
    serviceConfig = option (types.attrsOf types.anything) { };
  };
  options = {
    assertions = option (types.listOf (types.attrsOf types.anything)) [ ];
    environment.systemPackages = option (types.listOf types.package) [ ];
    systemd.packages = option (types.listOf types.package) [ ];
    systemd.services = option (types.attrsOf (types.submodule service)) { };
    systemd.tmpfiles.rules = names;
  };

  module = import (source + "/nix/incus/module.nix") { inherit config lib pkgs; };
  config = lib.evaluate "config" module.options (builtins.fromJSON settings)
    // { systemd.package = "${programs}/systemd"; };
  system = lib.evaluate "system" options
    (if module.config.condition then module.config.content else { });

  # A list is a setting that is given several times.
  section = name: set: "[${name}]\n" + builtins.concatStringsSep "" (builtins.concatLists (map
    (key: map (value: "${key}=${if value == true then "true" else toString value}\n")
      (if builtins.isList set.${key} then set.${key} else [ set.${key} ]))
    (builtins.attrNames set)));
  unitFile = name: service: pkgs.writeTextDir "lib/systemd/system/${name}.service" (
    section "Unit"
      (service.unitConfig // {
        Description = service.description;
        Before = toString service.before;
        After = toString service.after;
        BindsTo = toString service.bindsTo;
        X-RestartIfChanged = if service.restartIfChanged then "true" else "false";
      })
    + section "Service" service.serviceConfig
  );
  wants = name: service: map
    (wanting: ''
      mkdir -p '${wanting}.wants'
      ln -s '../${name}.service' '${wanting}.wants'
    '')
    service.wantedBy;
  each = f: builtins.attrValues (builtins.mapAttrs f system.systemd.services);
in
{
  inherit system;
  errors = map (given: given.message) (builtins.filter (given: !given.assertion) system.assertions);
  commands = system.environment.systemPackages;
  units = pkgs.runCommand "system-units" { packages = system.systemd.packages ++ each unitFile; } ''
    mkdir "$out"
    cd "$out"
    for package in $packages; do cp -r "$package/lib/systemd/system/." .; chmod -R u+w .; done
    ${builtins.concatStringsSep "" (builtins.concatLists (each wants))}
  '';
}
