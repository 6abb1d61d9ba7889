"""Subcommands of `pyfau`, one thin module each: they parse and print.

`add_parser` describes a command. Heavy packages are imported when the command runs.
"""
