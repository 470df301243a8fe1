{
  description = "Builds Incus images the osbuild way and always tells the truth about it";

  # No inputs: whoever uses these brings a nixpkgs, and nothing is fetched here. The flake
  # is at the root because nix/incus/pika-cloud-lifecycle.py.in links to osbuild_pika/.
  outputs = { self }: {
    # pkgs -> the guest's helper, and pkgs -> settings -> an Incus image.
    lib.helper = pkgs: import ./nix/incus/helper.nix { inherit pkgs; };
    lib.guestImagePackage = pkgs: import ./nix/incus/guest-image-package.nix { inherit pkgs; };

    nixosModules.default = import ./nix/incus/module.nix;

    overlays.default = final: prev: {
      pika-cloud-lifecycle = self.lib.helper final;
    };
  };
}
