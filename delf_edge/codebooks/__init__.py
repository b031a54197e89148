"""Codebooks fitted to photos, and bundles that hold them: numpy only, on one machine or in parts on many.

The workstation's converters and the build on a cluster (`building.fitting`) both use this; a device does not.

    parts.py        rows that lie in parts, in a fixed order
    clustering.py   k-means, product quantiser, OPQ from the sums of the parts
    codebooks.py    projection, words and codes of raw descriptors
    packing.py      a bundle from its files, with golden vectors
"""
