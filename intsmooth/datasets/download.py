"""Fetches a file once: resumable, checked against its SHA-256, never half there under its own name.

Bytes arrive in NAME.part, which a later call continues with an HTTP range request; only a file whose digest is right is
renamed to NAME. Where there is no network the error says what to put where.
"""

import hashlib
import http.client
import os
import pathlib
import urllib.error
import urllib.request
from collections.abc import Callable

from intsmooth.errors import DataError, ResourceError

_CHUNK = 1 << 18
_TIMEOUT_S = 30


def data_folder() -> pathlib.Path:
    """Where downloads are kept: INTSMOOTH_DATA, else intsmooth in XDG_CACHE_HOME or ~/.cache."""
    if os.environ.get("INTSMOOTH_DATA"):
        return pathlib.Path(os.environ["INTSMOOTH_DATA"])
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "intsmooth"


def fetch(
    url: str, target: pathlib.Path, sha256: str, size: int, progress: Callable[[int, int], None] | None = None
) -> pathlib.Path:
    """Download `url` to `target` unless it is there, and return `target`.

    sha256, size: what the whole file must have. progress(bytes so far, size) is called as bytes arrive.
    DataError: no network, a server that fails, or a file of another digest. ResourceError: nowhere to write it.
    """
    if target.is_file():
        return target
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise ResourceError(
            f"cannot write to {target.parent}: {error.strerror}; set INTSMOOTH_DATA to another folder"
        ) from error
    if part.stat().st_size < size:
        _receive(url, part, target, size, progress)
    found = _digest(part)
    if found != sha256:
        part.unlink()
        raise DataError(f"{url} gave a file with SHA-256 {found}, required is {sha256}; it was removed: try again")
    os.replace(part, target)
    return target


def _receive(url: str, part: pathlib.Path, target: pathlib.Path, size: int, progress) -> None:
    """Append to `part` what it still lacks."""
    start = part.stat().st_size
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            if start and response.status != 206:  # the server sends the whole file again
                start = 0
            with _opened(part, "ab" if start else "wb") as file:
                done = start
                while done <= size and (chunk := response.read(_CHUNK)):
                    _write(file, chunk, part)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, size)
        if done < size:
            raise http.client.IncompleteRead(b"", size - done)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"cannot fetch {url} ({reason}); {part.stat().st_size} of {size} bytes are kept and the next attempt "
            "continues there. "
            f"Without network: get {target.name} elsewhere and put it at {target}, or name its place with --data"
        ) from error


def _opened(part: pathlib.Path, mode: str):
    try:
        return open(part, mode)
    except OSError as error:
        raise ResourceError(f"cannot write {part}: {error.strerror}; set INTSMOOTH_DATA to another folder") from error


def _write(file, chunk: bytes, part: pathlib.Path) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise ResourceError(
            f"cannot write {part}: {error.strerror}; free some space and try again, what is there is kept"
        ) from error


def _digest(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
