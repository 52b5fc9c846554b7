"""What several commands are given, and how they refuse it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer


def local_path(text: str) -> Path:
    """A path on this machine's disks; an address would become a folder named `s3:`."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise typer.BadParameter(
            f"{text!r} is an address; give a path on a disk: nothing else is known"
        )
    if not text.strip() or "\0" in text:
        raise typer.BadParameter(f"{text!r} is no path; give a folder or file")
    try:
        Path(text).exists()
    except OSError as error:  # a name that is too long; a folder that is closed to us
        raise typer.BadParameter(f"{text[:200]!r} cannot be used: {error.strerror}") from None
    return Path(text)


def run_address(text: str) -> Path | str:
    """A path, or the address of a bucket or of memory."""
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return local_path(text)
    from edgesweep.storage import Refused
    from edgesweep.storage.stores import LocalStore, open_store

    try:
        store = open_store(text)
    except Refused as error:
        raise typer.BadParameter(str(error)) from None
    return store.root if isinstance(store, LocalStore) else store.url


RunDir = Annotated[
    Path,  # or an address: typer takes no union
    typer.Argument(
        metavar="RUN_DIR", parser=run_address, help="A run directory, or s3://, gs://, az://…"
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a config key.")
]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Go on in the place of a driver that is at work.")
]


def fail(error: object, code: int) -> NoReturn:
    """Ends the command with one line."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(code)
