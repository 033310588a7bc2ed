"""Names of converted tensors and nodes: what the model format accepts, as close to the source's names as possible."""

from collections.abc import Container

_LONGEST = 160


def clean_name(name: str) -> str:
    """`name` without what the model format does not accept; "tensor" where nothing is left."""
    text = "".join(letter if letter.isprintable() and letter != "\\" else "_" for letter in name[:_LONGEST])
    parts = [part for part in text.split("/") if part.strip() not in ("", ".", "..")]
    return "/".join(parts).strip() or "tensor"


class UniqueNames:
    """Numbers for names that are taken: "x", "x #2", "x #3"; it remembers the last, so that many alike stay cheap."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def choose(self, name: str, taken: Container[str]) -> str:
        """`name`, or the first of its numbered forms after those given before that is not in `taken`."""
        candidate = name
        while candidate in taken:
            self._last[name] = self._last.get(name, 1) + 1
            candidate = f"{name} #{self._last[name]}"
        return candidate
