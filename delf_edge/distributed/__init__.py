"""Build a database of millions of photos on many machines (extra `build`: Dask distributed, fsspec, pyarrow).

::

    manifest (CSV, Parquet) -> shards of photos -> one file a shard, anywhere -> merged into one or many databases

A shard is a pure function of (its photo list, the bundle), so it does not matter who makes it, or how often. Everything
is put together in the order of the manifest: the result is the same to the bit for any number of workers.

    listing.py     the manifest, cut into shards
    shards.py      one shard: photos -> file and manifest
    careful.py     the same in a process that may die of a photo
    cluster.py     the shards on a Dask cluster: retries, progress, resuming
    merging.py     shards -> databases
    raw.py         raw features of a shard
    fitting.py     those of a sample of photos -> a codebook
    codebook.py    manifest -> a bundle with a codebook of its own
"""
