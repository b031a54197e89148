"""Signed updates of packs (extra `update`): a channel that is published, and devices that follow it.

Trust is that of The Update Framework (theupdateframework.io), by its own library `tuf`: four roles with Ed25519 keys,
thresholds, rotation of every key, expiry, and protection against older and mixed states. What is signed is one file,
`channel.json`: the manifest of every pack's present version, and the deltas that lead to it.

    publisher.py   the publisher's side: keys, publishing, rotation
    delta.py       what changed between two versions of a pack, and applying that
    fetcher.py     files of a channel, from a folder, a web server or any fsspec URL
    self_test.py   whether a pack answers
    client.py      the device's side: verify, fetch, test, switch, go back
"""
