# NixOS module: tells the Incus host, in /run/pika-cloud, that the guest booted and how the unit
# fares that the guest is for: ready whenever it is active, failed once systemd gave it up.
{ config, lib, pkgs, ... }:

let
  inherit (lib) mkEnableOption mkIf mkOption optional optionalAttrs types;

  cfg = config.services.pika-cloud-lifecycle;
  isService = cfg.unit != null && lib.hasSuffix ".service" cfg.unit;

  # No shell reads an Exec line but systemd, which unquotes JSON strings as it does C's. It would
  # expand % and $; $ stays, for a service's result, and no option's type lets another one in.
  commandLine = words: lib.concatMapStringsSep " "
    (word: builtins.replaceStrings [ "%" ] [ "%%" ] (builtins.toJSON word))
    words;

  reporter = { state, message, details, serviceConfig }:
    let
      said = [ "--message" message "--details-json" (builtins.toJSON details) ];
      helper = arguments:
        commandLine ([ "${cfg.package}/bin/pika-cloud-lifecycle" ] ++ arguments ++ said);
    in
    {
      description = "Tell the Incus host: ${message}";
      unitConfig.RequiresMountsFor = [ cfg.directory ];
      serviceConfig = serviceConfig // {
        Type = "oneshot";
        # The event comes first: who sees a state finds in the log how it came about.
        ExecStart = [
          (helper [ "event" "--events-path" "${cfg.directory}/events.jsonl" "--kind" state ])
          (helper [ "status" "--status-path" "${cfg.directory}/status.json" "--state" state ])
        ];
        TimeoutStartSec = cfg.timeoutSeconds;
      };
    };

  booted = reporter
    {
      state = "booted";
      message = "the guest has booted";
      details.event = "guest.booted";
      serviceConfig.RemainAfterExit = true;
    } // {
    wantedBy = [ "multi-user.target" ];
    # What the unit's own program reports comes later. (A target waits for what it wants anyway.)
    before = optional isService cfg.unit;
    # A guest boots once: another configuration is not another boot.
    restartIfChanged = false;
  };

  # Bound to the unit, this stops with it and so reports again after each restart.
  ready = reporter
    {
      state = "ready";
      message = "${cfg.unit} is active";
      details = { event = "unit.ready"; inherit (cfg) unit; };
      serviceConfig.RemainAfterExit = true;
    } // {
    wantedBy = [ cfg.unit ];
    bindsTo = [ cfg.unit ];
    after = [ cfg.unit "pika-cloud-booted.service" ];
  };

  failed = reporter
    {
      state = "failed";
      message = "${cfg.unit} failed";
      details = { event = "unit.failed"; inherit (cfg) unit; } // optionalAttrs isService {
        # exit-code, signal, oom-kill, ...; "success" if what it requires failed before it ran.
        result = "\${MONITOR_SERVICE_RESULT}";
      };
      serviceConfig.ExecCondition = commandLine [ "${isDown}" cfg.unit ];
    } // {
    after = [ "pika-cloud-booted.service" "pika-cloud-ready.service" ];
  };

  # From systemd 254 on OnFailure= also fires when Restart= is about to try once more.
  isDown = pkgs.writeShellScript "pika-cloud-is-down" ''
    case "$(${config.systemd.package}/bin/systemctl show --property=ActiveState --value -- "$1")" in
      active | activating | reloading) exit 1 ;;
    esac
  '';

  # A drop-in reaches units of every origin; systemd.services.<unit>.onFailure would create an
  # empty service in the place of one that only exists at run time.
  onFailure = pkgs.writeTextDir "lib/systemd/system/${cfg.unit}.d/pika-cloud.conf" ''
    [Unit]
    OnFailure=pika-cloud-failed.service
  '';

  services = { pika-cloud-booted = booted; }
    // optionalAttrs (cfg.unit != null) { pika-cloud-ready = ready; pika-cloud-failed = failed; };
in
{
  options.services.pika-cloud-lifecycle = {
    enable = mkEnableOption "telling the Incus host how far the guest is";

    package = mkOption {
      type = types.package;
      default = import ./helper.nix { inherit pkgs; };
      defaultText = lib.literalExpression "import ./helper.nix { inherit pkgs; }";
      description = "What has {command}`bin/pika-cloud-lifecycle`.";
    };

    directory = mkOption {
      type = types.strMatching "(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+";
      default = "/run/pika-cloud";
      description = ''
        Where {file}`status.json` and {file}`events.jsonl` are, and where a workload writes its
        {file}`result.json`. Only root may write there. Below {file}`/run` they end with the boot.
      '';
    };

    unit = mkOption {
      type = types.nullOr (types.strMatching
        "[A-Za-z0-9_:][A-Za-z0-9\\:_.-]*(@[A-Za-z0-9\\:_.-]+)?[.](service|target)");
      default = null;
      example = "nginx.service";
      description = ''
        The unit that the guest is for. Whenever it becomes active `ready` is reported, and
        `failed` when systemd has given it up, with its restarts if it has any. How long it may
        take is its own setting, for example `TimeoutStartSec`. A service is ready when systemd
        says so: prefer `Type=notify`, and give `Type=oneshot` a `RemainAfterExit`. It must not be
        needed before {file}`basic.target`. Stopping it on purpose is not reported.
      '';
    };

    timeoutSeconds = mkOption {
      type = types.ints.positive;
      default = 30;
      description = "How long one report may take before systemd gives it up.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = !(lib.elem cfg.unit (map (name: "${name}.service") (lib.attrNames services)));
        message = "services.pika-cloud-lifecycle.unit: ${toString cfg.unit} reports itself; "
          + "name the unit that is to be reported.";
      }
    ];

    environment.systemPackages = [ cfg.package ];
    systemd = {
      inherit services;
      packages = optional (cfg.unit != null) onFailure;
      tmpfiles.rules = [ "d ${cfg.directory} 0755 root root -" ];
    };
  };
}
