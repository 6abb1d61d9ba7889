"""`pyfau serve`: a page on this machine where a camera or a clip is scored. Needs `pyfau[serve]`."""
