#!/bin/sh
# Runs PROGRAM in a root of its own, this machine's and openrc's packages over it, after OpenRC has
# gone through its runlevels there. Nothing of it is left on the machine.
# usage: unshare --mount --pid --fork --kill-child --propagation private \
#            boot.sh PLACE PACKAGES PROGRAM [ARGUMENT...]
set -eu
place=$1
packages=$2
shift 2
mount -t tmpfs tmpfs "$place"
cd "$place"
mkdir packages packages/usr upper work root
for package in "$packages"/*.deb; do
    dpkg-deb --extract "$package" unpacked
    for name in bin sbin lib; do # as in a tree with merged /usr
        [ ! -d unpacked/$name ] || cp -a unpacked/$name packages/usr/
        rm -rf unpacked/$name
    done
    cp -a unpacked/. packages/
    rm -rf unpacked
done
mount -t overlay overlay -o "lowerdir=$place/packages:/,upperdir=$place/upper,workdir=$place/work" root
rm -rf root/etc/init.d root/etc/conf.d
cp -a packages/etc/init.d root/etc/
echo 'rc_sys="lxc"' >> root/etc/rc.conf
mount -t proc proc root/proc
mount -t tmpfs tmpfs root/run
mount --rbind /dev root/dev
# This shell stays the first process: it takes note of all that end, or nothing would seem to.
chroot root /bin/sh -c \
    'for level in sysinit boot default; do openrc $level > /dev/null; done; "$@"; exit' - "$@"
exit
