"""Progress: few lines in a log, one line on a terminal."""

from intsmooth.progress import Progress


class Screen:
    def __init__(self, terminal):
        self.text, self.terminal = "", terminal

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_progress_in_a_log_adds_few_lines():
    now, screen = [0.0], Screen(terminal=False)
    progress = Progress(100, done=20, stream=screen, clock=lambda: now[0])
    for done in range(21, 101):
        now[0] += 1.0
        progress.advance(done, "note")
    progress.close()
    lines = screen.text.splitlines()
    assert len(lines) == 8 and lines[0] == "30/100 images, 30 %, 1.0 images/s, 0:01:10 left, note"
    assert lines[-1].startswith("100/100 images, 100 %") and "0.0 s left" in lines[-1]


def test_progress_on_a_terminal_rewrites_one_line(monkeypatch):
    now, screen = [0.0], Screen(terminal=True)
    monkeypatch.setenv("COLUMNS", "40")
    progress = Progress(10, "MB", stream=screen, scale=0.1, clock=lambda: now[0])
    for done in range(1, 11):
        now[0] += 0.06
        progress.advance(done, "a long note that a narrow terminal has no room for")
    progress.close()
    assert screen.text.count("\r") == 6 and screen.text.count("\n") == 1 and screen.text.endswith("\n")
    assert all(len(line) <= 39 for line in screen.text.rstrip("\n").split("\r"))
