"""A service (command, environment, user, log, readiness) as files of an init system.

s6         a service directory, and how it is written
systemd    a unit
openrc     an init script

Values in, texts out: nothing here looks at the machine. service_managers/ uses them on hosts,
stages in trees.
"""
