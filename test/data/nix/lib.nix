# As much of nixpkgs' lib as module.nix uses, with its meaning: options have types, a value of
# another type is refused, and so is a name that no option has.
rec {
  inherit (builtins) attrNames elem;

  concatMapStringsSep = separator: f: list: builtins.concatStringsSep separator (map f list);
  hasSuffix = suffix: text:
    let
      start = builtins.stringLength text - builtins.stringLength suffix;
    in
    start >= 0 && builtins.substring start (builtins.stringLength suffix) text == suffix;
  literalExpression = text: { _type = "literalExpression"; inherit text; };
  optional = condition: value: if condition then [ value ] else [ ];
  optionalAttrs = condition: value: if condition then value else { };

  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkOption = declared: { _type = "option"; } // declared;
  mkEnableOption = what: mkOption {
    type = types.bool;
    default = false;
    description = "Whether to enable ${what}.";
  };

  # A type says what it takes; `resolve` goes on inside a value that it took.
  mkType = type: { resolve = path: value: value; } // type;
  types = {
    anything = mkType { name = "anything"; check = value: true; };
    bool = mkType { name = "a boolean"; check = builtins.isBool; };
    str = mkType { name = "a string"; check = builtins.isString; };
    package = mkType { name = "a package"; check = value: (value.type or null) == "derivation"; };
    ints.positive = mkType {
      name = "a positive integer";
      check = value: builtins.isInt value && value > 0;
    };
    strMatching = pattern: mkType {
      name = "a string like ${pattern}";
      check = value: builtins.isString value && builtins.match pattern value != null;
    };
    nullOr = type: mkType {
      name = "null or ${type.name}";
      check = value: value == null || type.check value;
      resolve = path: value: if value == null then null else type.resolve path value;
    };
    listOf = type: mkType {
      name = "a list of ${type.name}";
      check = value: builtins.isList value && builtins.all type.check value;
      resolve = path: map (type.resolve path);
    };
    attrsOf = type: mkType {
      name = "a set of ${type.name}";
      check = value: builtins.isAttrs value && builtins.all type.check (builtins.attrValues value);
      resolve = path: builtins.mapAttrs (name: type.resolve "${path}.${name}");
    };
    submodule = options: mkType {
      name = "a set of options";
      check = builtins.isAttrs;
      resolve = path: evaluate path options;
    };
  };

  # Options and settings -> their values, or an error that names the option.
  evaluate = path: options: settings:
    let
      stray = builtins.attrNames (builtins.removeAttrs settings (builtins.attrNames options));
      value = name: option:
        let
          here = "${path}.${name}";
          given = settings.${name} or option.default or (throw "${here} has no value");
        in
        if (option._type or null) != "option" then evaluate here option (settings.${name} or { })
        else if !option ? description then throw "${here} has no description"
        else if option.type.check given then option.type.resolve here given
        else throw "${here} is not ${option.type.name}";
    in
    if stray == [ ] then builtins.mapAttrs value options
    else throw "${path} has no option ${builtins.head stray}";
}
