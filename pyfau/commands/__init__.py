"""Subcommands of `pyfau`, one module each: `add_parser` describes it, and nothing heavy is imported until it runs."""
