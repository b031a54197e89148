"""Codebooks fitted to photos, and bundles that hold them: numpy only, on one machine or in parts on many.

The workstation's converters and the build on a cluster (`distributed.partitioned_fit`) both use this; a device does
not.

    partitions.py      rows that lie in parts, in a fixed order
    kmeans.py          k-means from the sums of the parts
    opq.py             product quantiser and OPQ, likewise
    projections.py     PCA, and a projection learnt from matches
    fit.py             projection, words and codes of raw descriptors
    bundle_writer.py   a bundle from its files, with golden vectors
"""
