"""The commands of `delf-edge`: their headings, their modules, and what `--help` says of each.

A module is imported when one of its commands is asked for. So the help of the program, and every command, start without
the options of all the others: those are two thirds of the time of `delf-edge --help` otherwise. What is said here of a
command is the first sentence of its own help; a test compares them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from typing import Any, NamedTuple


class Listed(NamedTuple):
    """A command as the help of the program lists it: its module in this folder, and its help in a sentence."""

    module: str
    summary: str


HEADINGS: dict[str, dict[str, Listed]] = {
    "Recognition": {
        "index": Listed("indexing", "Add the photos of a folder."),
        "identify": Listed("recognition", "Name the place that each photo shows."),
        "explain": Listed("recognition", "Draw the proof of an answer."),
    },
    "Database": {
        "info": Listed("database", "Say what is in a database."),
        "remove": Listed("database", "Remove images, or a landmark with its images and coordinates."),
        "relabel": Listed("database", "Say that an image shows another landmark."),
        "rename": Listed("database", "Give a landmark another name, or merge it with another one."),
        "locate": Listed("database", "Say where a landmark is."),
        "missing": Listed("database", "List stored images whose photo file is gone."),
        "verify": Listed("database", "Check every page and every checksum."),
        "snapshot": Listed("database", "Copy a database while it is in use."),
        "seal": Listed("database", "Make one compact read-only file."),
    },
    "What is known of places": {
        "catalogue": Listed("catalogue", "Texts, pictures, sounds and ids of landmarks: see and change."),
    },
    "Kiosk": {
        "serve": Listed("kiosk", "Serve the kiosk page and its service, until it is stopped."),
        "webapp": Listed(
            "kiosk", "Write the page for visitors' phones: a folder that any web server can give out over HTTPS."
        ),
    },
    "Packs": {
        "pack": Listed("packs", "Cut a read-only pack out of a database."),
        "publish": Listed("packs", "Sign packs and put them into a channel, with deltas from the versions before."),
        "update": Listed("packs", "Bring this device's packs to the state of a channel."),
    },
    "Other programs": {
        "export": Listed("interchange", "Write a database as Parquet and GeoJSON, for other programs."),
        "import": Listed("interchange", "Add the images of an export to a database."),
    },
    "Many photos": {
        "build": Listed("distributed", "Build databases from millions of photos, on one machine or many."),
        "fit-codebook": Listed(
            "distributed",
            "Fit PCA, words and codes to a sample of your photos, and put them into a bundle of your own.",
        ),
    },
    "Diagnostics": {
        "lint": Listed("diagnostics", "Say which photos of a database are poor references, and why."),
        "doctor": Listed("diagnostics", "Check this machine and the bundle."),
        "bench": Listed("diagnostics", "Measure how fast this machine is."),
    },
}
COMMANDS = {name: listed for commands in HEADINGS.values() for name, listed in commands.items()}


class LazyCommands(MutableMapping[str, Any]):
    """Name -> command as Click has it, in the order of `COMMANDS`; each is made when it is asked for, once."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            module = importlib.import_module(f"delf_edge.cli.{COMMANDS[name].module}")
            self._made[name] = module.commands.click_command(name)
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name}: commands are listed in delf_edge/cli/command_list.py")

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS
