"""Devices."""

from osbuild_pika.devices import DeviceService

__all__ = ["DeviceService"]
