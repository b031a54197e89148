"""Build a database of millions of photos on many machines (extra `build`: Dask distributed, fsspec, pyarrow).

::

    manifest (CSV, Parquet) -> shards of photos -> one file a shard, anywhere -> merged into one or many databases

A shard is a pure function of (its photo list, the bundle), so it does not matter who makes it, or how often. Everything
is put together in the order of the manifest: the result is the same to the bit for any number of workers.

    (interchange/photo_tables.py: the manifest, cut into shards)
    shards.py            one shard: photos -> file and manifest
    isolation.py         the same in a process that may die of a photo
    cluster.py           the shards on a Dask cluster: retries, progress, resuming
    merging.py           shards -> databases
    build.py             manifest -> databases, the whole of it
    raw_features.py      raw features of a shard
    partitioned_fit.py   those of a sample of photos -> a codebook
    codebook.py          manifest -> a bundle with a codebook of its own
    remote_files.py      files on any file system
"""
