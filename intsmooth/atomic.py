"""Files that are there as a whole or not at all: a kill, an error or a full disk leaves what was there before."""

import os
import pathlib
import secrets


def write_whole(path: str | os.PathLike, data: bytes | memoryview) -> None:
    """Write `data` to `path` through a file beside it, which is on disk before it takes the name. Raises OSError."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
