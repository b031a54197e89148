"""The evaluation lab: commands on top, and what they share in four folders beneath.

::

    data/     what is asked                     (Dataset, readers, the training set, kept features)
    metrics/  how well it was answered          (rankings -> figures)
    systems/  who answers                       (System.extract, add, search)
    lab/      how it is run and written down    (runner, tuning, reports, plots)
    evaluate, bench, ablations, calibrate, ...: the commands, `python -m benchmarks.NAME`

A module imports from its own folder and from those above it in this list. A workstation's tool: it may import
`delf_edge` and its converters; nothing of `delf_edge` imports it.
"""
