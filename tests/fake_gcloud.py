#!/usr/bin/env python3
"""A stand-in for gcloud: notes each call, and plays a VM whose hosts are folders of this machine.

The folder $FAKE_GCLOUD holds `calls` (a line of JSON for each call), `vm` and `queued` (their
states; there is none without the file), `hosts` (the number of hosts), and `fail`: lines of JSON
[words of a call, exit code, message, {file: text}]. The first call that has these words fails in
this way, writes the files and uses the line up.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

FOLDER = pathlib.Path(os.environ["FAKE_GCLOUD"])


def read(name, default=""):
    path = FOLDER / name
    return path.read_text().strip() if path.exists() else default


def end(code, message):
    print(message, file=sys.stderr)
    sys.exit(code)


def planned_failure(arguments):
    lines = read("fail").splitlines()
    for i, line in enumerate(lines):
        words, code, message, files = json.loads(line)
        if all(any(word in argument for argument in arguments) for word in words):
            (FOLDER / "fail").write_text("".join(f"{x}\n" for x in lines[:i] + lines[i + 1 :]))
            for name, text in files.items():
                (FOLDER / name).write_text(text)
            end(code, message)


def describe(name):
    if not read(name):
        end(1, f"ERROR: NOT_FOUND: Resource '{name}' was not found")
    print(read(name))


def on_hosts(worker, command):
    hosts = range(int(read("hosts", "1"))) if worker == "all" else [int(worker)]
    codes = []
    for host in hosts:
        home = FOLDER / f"host{host}"
        home.mkdir(exist_ok=True)
        environment = {**os.environ, "HOME": str(home), "HOST": str(host)}
        codes.append(subprocess.run(["bash", "-c", command], env=environment, cwd=home).returncode)
    return max(codes)


def main(arguments):
    with (FOLDER / "calls").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    planned_failure(arguments)
    kind, verb = arguments[2:4]
    options = dict(a[2:].split("=", 1) for a in arguments if a.startswith("--") and "=" in a)
    state = "vm" if kind == "tpu-vm" else "queued"
    if verb == "create":
        (FOLDER / "vm").write_text("READY")
        if state == "queued":
            (FOLDER / "queued").write_text("ACTIVE")
    elif verb == "describe":
        if "spot" in options.get("format", ""):
            print(read("spot", "False"))
        else:
            describe(state)
    elif verb == "delete":
        describe(state)
        (FOLDER / state).unlink()
        if state == "queued":  # with --force, its VM goes too
            (FOLDER / "vm").unlink(missing_ok=True)
        for home in FOLDER.glob("host*/"):
            shutil.rmtree(home)
    elif verb == "scp":
        for host in range(int(read("hosts", "1"))):
            home = FOLDER / f"host{host}"
            home.mkdir(exist_ok=True)
            shutil.copy(arguments[4], home / arguments[5].partition(":")[2])
    elif verb == "ssh":
        sys.exit(on_hosts(options["worker"], options["command"]))


main(sys.argv[1:])
