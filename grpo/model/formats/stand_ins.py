"""What lies where a file should be: the pointer that Git LFS leaves until it has fetched it, a web page, a folder, or a
link to nothing."""
from __future__ import annotations

import os
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


def there(path: Path) -> bool:
    """Whether there is a file. FileFormatError for what has its name and is none: a folder, or a link to nothing, which
    a cache of the hub holds where a download was not finished or was cleared.

    >>> there(Path("no-such-file"))
    False
    """
    if path.is_file():
        return True
    if path.is_dir():
        raise FileFormatError(f"{path}: is a folder, where a file should be")
    if path.is_symlink():
        raise FileFormatError(f"{path}: is a link to {os.readlink(path)!s:.200}, which is not there: download the file "
                              "again (`hf download`)")
    return False
