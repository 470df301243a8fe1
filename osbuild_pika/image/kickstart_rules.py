"""What is made of each kickstart command: the tables that docs/reference/kickstart.md repeats."""

from __future__ import annotations

from collections.abc import Mapping

_INSTALLER = "only an installer has a use for it"
_STORAGE = "a container has no disks of its own: Incus gives it its storage"
_MEDIA = "packages come from the mirrors"
_LAYOUT = "an image has no disks: leave the layout to Incus's storage pools"
_PAM = "Debian's PAM is as its packages set it up"

# Nothing of the image depends on them.
IGNORED: Mapping[str, str] = {
    **dict.fromkeys(
        ("autostep", "cmdline", "device", "deviceprobe", "driverdisk", "eula", "firstboot"),
        _INSTALLER,
    ),
    **dict.fromkeys(
        ("graphical", "halt", "install", "interactive", "key", "langsupport", "logging"), _INSTALLER
    ),
    **dict.fromkeys(("mediacheck", "monitor", "mouse", "poweroff", "rdp", "reboot"), _INSTALLER),
    **dict.fromkeys(("rescue", "shutdown", "skipx", "sshpw", "text", "updates"), _INSTALLER),
    **dict.fromkeys(("unsupported_hardware", "upgrade", "vnc", "xconfig"), _INSTALLER),
    **dict.fromkeys(("cdrom", "harddrive", "hmc", "nfs"), _MEDIA),
    **dict.fromkeys(
        ("autopart", "bootloader", "clearpart", "dmraid", "fcoe", "ignoredisk", "iscsi"), _STORAGE
    ),
    **dict.fromkeys(
        ("iscsiname", "lilo", "lilocheck", "mount", "multipath", "nvdimm", "part"), _STORAGE
    ),
    **dict.fromkeys(
        ("partition", "reqpart", "snapshot", "zerombr", "zfcp", "zipl", "installerfw"), _STORAGE
    ),
    **dict.fromkeys(("auth", "authconfig", "authselect"), _PAM),
    "desktop": "no display manager is set up: do that in %post",
    "firewall": "the host filters what goes to a guest: `incus network acl`",
    "rhsm": "Debian has no subscriptions",
    "selinux": "the host's kernel confines a container",
    "syspurpose": "Debian has no subscriptions",
    "%addon": _INSTALLER,
    "%anaconda": _INSTALLER,
    "%attachment": "an image is all that is published: put files in by %post",
    "%pack": "outputs are packed as they are: change the tree in %post",
}
# An image without them would not be what was meant: refused, unless allowed by name.
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("btrfs", "logvol", "raid", "stratisfs", "stratispool", "volgroup"),
        _LAYOUT,
    ),
    **dict.fromkeys(
        ("bootc", "liveimg", "ostreecontainer", "ostreesetup"),
        "an image is made of packages: list them in %packages",
    ),
    "module": "Debian has no module streams: list packages in %packages",
    "realm": "a realm is joined by a machine, not by an image: do it at the first boot",
    "@groups": "Debian has no groups: list packages, such as those that `tasksel --task-packages "
    "TASK` names, or a metapackage such as task-web-server",
    "%certificate": "write the certificate in %post, and list ca-certificates in %packages",
    "%onerror": "a build that fails ends: take it out",
    "%post --nochroot": "nothing of the host is seen in a build: make it a plain %post",
    "%pre": "nothing runs before a build: write what it generates into the kickstart",
    "%pre-install": "nothing runs before the packages: make it a %post",
    "%traceback": "a build that fails ends: take it out",
}
HONOURED: Mapping[str, str] = {
    "lang": "`locale`",
    "keyboard": "`/etc/default/keyboard`",
    "timezone": "`timezone`; its NTP servers as `timesource`",
    "timesource": "servers and pools for systemd-timesyncd; `--ntp-disable` masks it",
    "rootpw": "root's password, hashed before anything is written, or locked",
    "user": "`users`, with its groups",
    "group": "`groups`",
    "sshkey": "`ssh_keys` of the user",
    "services": "`services`, by Debian's names",
    "network": "`hostname`; static addresses for systemd-networkd",
    "url": "`mirror`, and the distribution",
    "repo": "`mirror`",
    "%packages": "`packages` and `exclude`",
    "%post": "`hooks`, after the files: in order, each with its interpreter and log",
}
SECRET = (
    "rootpw",
    "user",
    "sshpw",
    "bootloader",
    "vnc",
    "rdp",
    "realm",
    "iscsi",
    "rhsm",
    "network",
)
