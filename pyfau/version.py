"""The version of the code. Everything else that states it is tested against this file."""

__version__ = "0.1.0"
