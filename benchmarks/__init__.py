"""The evaluation lab: protocols, readers, systems, peers, and the one table they all end in.

::

    datasets, readers  -> what is asked          (Dataset)
    systems/           -> who answers            (System.extract, add, search)
    runner, protocols  -> how well they answered (rankings -> figures)
    evaluate, bench, ablations, calibrate, selection: the commands

A workstation's tool: it may import `delf_edge` and `converters`; nothing imports it.
"""
