#!/bin/sh
# Boots this machine's systemd as PID 1 of namespaces of its own, with the units in UNITS and no
# others, and with RUN as its /run. Ends when a unit says `systemctl --force exit`.
# usage: unshare --mount --propagation private boot.sh UNITS RUN
set -eu
units=$1
run=$2
if [ "${3-}" = inside ]; then
    mount -t proc proc /proc
    mount --bind /proc/sys /proc/sys
    mount -o remount,bind,ro /proc/sys # systemd would raise the machine's limits
    umount /sys/fs/cgroup # the same file system is not mounted twice at one place
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount --bind "$run" /run
    export SYSTEMD_UNIT_PATH="$units"
    complaints=$(systemd-analyze verify --man=no "$units"/pika-cloud-*.service 2>&1)
    [ -z "$complaints" ] || { echo "$complaints" >&2 && exit 1; }
    mount -o remount,bind,ro /
    exec env -i container=test SYSTEMD_UNIT_PATH="$units" SYSTEMD_LOG_TARGET=null \
        SYSTEMD_GENERATOR_PATH=/var/empty \
        /lib/systemd/systemd --system --unit=multi-user.target
fi

umount --recursive /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
group=/sys/fs/cgroup/pika-test-$$
mkdir "$group"
trap 'until find "$group" -depth -type d -exec rmdir {} + ; do sleep 0.1; done' EXIT
# Who is killed here takes PID 1 along, and that one all others.
GROUP=$group timeout --signal=KILL 40 sh -c 'echo $$ > "$GROUP/cgroup.procs"; exec "$@"' - \
    unshare --cgroup --pid --fork --kill-child --ipc --net --uts --mount "$0" "$units" "$run" inside
