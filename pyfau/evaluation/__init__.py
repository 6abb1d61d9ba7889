"""Scores against human labels: the paper's protocol on BP4D and DISFA, and anyone's own labels.

`lists` reads the official lists and cuts the clips, `protocol` scores and stores them, `tables` matches one's own
labels with pyfau's tables, `metrics` measures, `report` puts the result beside the paper's figures.
"""
