"""Signed updates of packs (extra `update`): a channel that is published, and devices that follow it.

Trust is that of The Update Framework (theupdateframework.io), by its own library `tuf`: four roles with Ed25519 keys,
thresholds, rotation of every key, expiry, and protection against older and mixed states. What is signed is one file,
`channel.json`: the manifest of every pack's present version, and the deltas that lead to it.

    channel.py   the publisher's side: keys, publishing, rotation
    delta.py     what changed between two versions of a pack, and applying that
    fetching.py  files of a channel, from a folder, a web server or any fsspec URL
    selftest.py  whether a pack answers
    device.py    the device's side: verify, fetch, test, switch, go back
"""
