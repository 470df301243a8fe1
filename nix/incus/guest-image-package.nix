# A split Incus image of a virtual machine, for `incus image import metadata.tar.xz disk.qcow2`.
{ pkgs }:

{ name
  # A .qcow2 file, or a directory (a derivation's output, say) with exactly one in it.
, disk
  # Unix seconds, and never "now": the same inputs make the same bytes, so the same fingerprint.
, creation_date
, architecture ? pkgs.stdenv.hostPlatform.uname.processor
  # Strings by name, what `incus image info` shows: os, release, variant, description, ...
, properties ? { }
}:

# Incus refuses these too, but only at import.
assert builtins.isInt creation_date && creation_date > 0
  || throw "guest image ${name}: creation_date must be Unix seconds, greater than 0";
assert builtins.all builtins.isString (builtins.attrValues properties)
  || throw "guest image ${name}: every property must be a string";

pkgs.runCommand name
{
  nativeBuildInputs = [ pkgs.qemu-utils ];
  inherit disk creation_date;
  # JSON is YAML. As a file it meets no shell.
  metadata = builtins.toJSON { inherit architecture creation_date properties; };
  passAsFile = [ "metadata" ];
} ''
  fail() {
    echo "guest image $name: $1" >&2
    exit 1
  }

  image=$disk
  if [ -d "$disk" ]; then
    mapfile -d "" -t images < <(find -L "$disk" -type f -name "*.qcow2" -print0)
    [ "''${#images[@]}" = 1 ] || fail "want one .qcow2 below $disk, found ''${#images[@]}"
    image=''${images[0]}
  fi
  info=$(qemu-img info -f qcow2 --output=json "$image") || fail "$image is not a qcow2 image"
  # Elsewhere, half of a disk is none.
  if grep -Eq '"(backing-filename|data-file)": ' <<< "$info"; then
    fail "$image keeps data in another file; flatten it with qemu-img convert"
  fi

  mkdir "$out"
  # A copy has the same bytes each time. qemu-img convert may not: it compresses several clusters
  # at once and writes them in the order in which they are done.
  cp --reflink=auto "$image" "$out/disk.qcow2"

  cp "$metadataPath" metadata.yaml
  # Names, owners, modes and times are given, and threads or a host's default level cannot change
  # how xz cuts its blocks.
  tar --create --format=gnu --sort=name --mtime="@$creation_date" --mode=0644 \
    --owner=0 --group=0 --numeric-owner metadata.yaml \
    | xz --format=xz --check=crc64 --threads=1 -6 > "$out/metadata.tar.xz"
''
