"""Who starts services, on build hosts and in guests: one small protocol over init systems.

base       what every backend is and refuses; which one this machine has
programs   the one place that starts a backend's programs
s6         s6: registered, watched and unregistered at run time
s6_calls   its programs, and what they say
s6_tree    what a service directory of s6 holds: values only, and how it is written
desired    what is to be registered and running, kept over a boot
systemd    systemd, of the system and of a user
"""
