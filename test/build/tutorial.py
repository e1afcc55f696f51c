"""tutorial.py PAGE DIRECTORY -- does in a directory what a page says, and compares."""

import pathlib
import re
import subprocess
import sys

PATIENCE_S = 120
END = "this command has ended with "


def steps_of(page):
    """Yields ("file", name, text) and ("command", command, what it says), in the page's order."""
    name = None
    for kind, body, named in re.findall(r"^```(\w+)\n(.*?)^```$|^`([\w.]+)`:$", page, re.M | re.S):
        if named:
            name = named
        elif kind == "c":
            assert name, "a piece of C has no name"
            yield "file", name, body
            name = None
        elif kind == "console":
            for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
                command, _, said = part.partition("\n")
                yield "command", command, said


class Shell:
    def __init__(self, directory):
        self.bash = subprocess.Popen(
            ["timeout", str(PATIENCE_S), "bash"], cwd=directory, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, command):
        self.bash.stdin.write(f"{command}\necho \"{END}$?\"\n")
        self.bash.stdin.flush()
        said = ""
        for line in self.bash.stdout:
            before, mark, status = line.partition(END)
            said += before
            if mark:
                return said, int(status)
        raise SystemExit(f"the shell has ended in: {command}\n{said}")

    def end(self):
        self.bash.stdin.close()
        self.bash.wait()


def main(page, directory):
    shell = Shell(directory)
    files = commands = 0
    for kind, what, text in steps_of(pathlib.Path(page).read_text()):
        if kind == "file":
            (pathlib.Path(directory) / what).write_text(text)
            files += 1
            continue
        said, status = shell.run(what)
        if status != 0 or said != text:
            raise SystemExit(f"$ {what}\nended with {status}, and said\n{said}instead of\n{text}")
        commands += 1
    shell.end()
    if files < 6 or commands < 15:
        raise SystemExit(f"only {files} files and {commands} commands were found")
    print(f"{files} programs, {commands} commands")


main(*sys.argv[1:])
