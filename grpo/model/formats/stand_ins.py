"""What lies where a file should be: the pointer that Git LFS leaves until it has fetched it, or a web page."""
from __future__ import annotations

from pathlib import Path

from ...errors import FileFormatError

LONGEST = 256                                            # bytes of a beginning that say which
POINTERS = {b"version https://git-lfs.github.com/spec/": ("Git LFS", "git lfs pull"),
            b"version https://hawser.github.com/spec/": ("Git LFS", "git lfs pull"),
            b"/annex/objects/": ("git-annex", "git annex get ."), b"../.git/annex/": ("git-annex", "git annex get .")}
PAGES = (b"<!doctype html", b"<html")


def refuse_stand_in(begin: bytes, path: str | Path) -> None:
    """FileFormatError where a file begins as a pointer or a page does. begin: LONGEST bytes of it, or all that it has.

    >>> refuse_stand_in(b"GGUF", "model.gguf")
    """
    for pointer, (system, command) in POINTERS.items():
        if begin.startswith(pointer):
            raise FileFormatError(f"{path}: is a {system} pointer, not the file itself: run `{command}` in its clone, "
                                  "or download the file again (`hf download`)")
    if begin.lstrip()[:len(PAGES[0])].lower().startswith(PAGES):
        raise FileFormatError(f"{path}: is a web page (HTML), not the file itself: download it again, from the link "
                              "that its site calls download")
