"""Files for other programs: one module a format, described in docs/formats.md."""
