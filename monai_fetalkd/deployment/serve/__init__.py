"""A page on this machine to look at an exported network: a frame or a cine in, planes out. Without torch and MONAI."""

from __future__ import annotations

from .app import create_app
from .connections import timed_protocol
from .limits import Limits

__all__ = ["Limits", "create_app", "timed_protocol"]
