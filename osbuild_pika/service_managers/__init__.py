"""Who starts services, on build hosts and in guests: one small protocol over init systems.

base       what every backend is and refuses; which one this machine has
programs   the one place that starts a backend's programs
s6         s6: registered, watched and unregistered at run time
s6_calls   its programs, and what they say
desired    what is to be registered and running, kept over a boot
unitfiles  files that an init system reads, one a service: the others register so
processes  those that a service manager lost
systemd    systemd, of the system and of a user
openrc     OpenRC
launchd    macOS; never run on one
windows    tasks of Windows' scheduler; never run on one

What a service is in files is in inside/services/.
"""
