"""Tools people use, on a shared folder against the same on the guest's own disk, in one session.

The guest's half is benches/tools.sh. The tree and the repository are given or made up, the same each time; so is the
project that npm installs, but for the versions that npm finds.
"""

import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from machines import BINARIES, ROOT

FILES_EACH = 10
# The project for npm is made here.
MADE = Path("made")
# A small real program: some seventy packages, some thousand files.
DEPENDENCIES = {"express": "^4.21.0"}
# Source files' sizes: most are small, a few are not.
SIZES = [200, 700, 1500, 3000, 6000, 12000, 40000]
WHO = {"GIT_AUTHOR_NAME": "b", "GIT_AUTHOR_EMAIL": "b@b", "GIT_COMMITTER_NAME": "b", "GIT_COMMITTER_EMAIL": "b@b",
       "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_DATE": "2000-01-01T00:00Z", "GIT_COMMITTER_DATE": "2000-01-01T00:00Z"}


def measure(image, options):
    """Seconds by tool and place: {tool: {"share": [...], "own": [...]}}."""
    with tempfile.TemporaryDirectory(prefix="bench-tools-", dir=options.on) as work:
        npm = prepare(Path(work), options)
        command = [BINARIES / "coffer", "run", *image, *(["--allow", "@npm"] if npm else []),
                   "--share", work, "--", "bash", "./tools.sh", str(options.runs)]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ran.returncode != 0:
        print(f"bench: tools skipped: the session ended with {ran.returncode}", file=sys.stderr)
        return {}
    return read(ran.stdout)


def prepare(work, options):
    """Whether there is a project for npm."""
    shutil.copy(ROOT / "benches/tools.sh", work / "tools.sh")
    tarball = work / "tree.tar"
    if options.tarball:
        shutil.copy(options.tarball, tarball)
    else:
        write_tree(tarball, options.tree)
    if options.repository:
        clone = ["git", "clone", "--quiet", "--no-hardlinks", options.repository, work / "repository"]
        subprocess.run(clone, check=True)
    else:
        make_repository(tarball, work / "repository")
    return bool(options.npm) and prepare_npm(work / "npm", options.npm)


def prepare_npm(project, given):
    project.mkdir()
    if given != MADE:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(given / name, project / name)
        return True
    package = {"name": "bench", "version": "1.0.0", "private": True, "dependencies": DEPENDENCIES}
    (project / "package.json").write_text(json.dumps(package))
    # The lock file names this host's registry, which is why there is none in the tree.
    command = ["npm", "install", "--package-lock-only", "--no-audit", "--no-fund"]
    try:
        subprocess.run(command, cwd=project, check=True, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as why:
        print(f"bench: npm ci skipped: no project could be made: {why}", file=sys.stderr)
        shutil.rmtree(project)
        return False
    return True


def write_tree(tarball, files):
    chance = random.Random(0)
    with tarfile.open(tarball, "w") as tar:
        for directory in range(files // FILES_EACH):
            for index in range(FILES_EACH):
                content = chance.randbytes(chance.choice(SIZES) // 2).hex().encode()
                entry = tarfile.TarInfo(f"tree/{directory // 25:02}/{directory:03}/{index}.txt")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def make_repository(tarball, repository):
    repository.mkdir()
    subprocess.run(["tar", "-x", "-f", tarball, "-C", repository], check=True)
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "tree"]):
        subprocess.run(["git", *words], cwd=repository, env=os.environ | WHO, check=True)


def read(report):
    results = {}
    for line in report.splitlines():
        word, *rest = line.split(maxsplit=1)
        if word == "skipped":
            print(f"bench: skipped {rest[0]}", file=sys.stderr)
            continue
        figure = json.loads(line)
        places = results.setdefault(figure["tool"], {"share": [], "own": []})
        places[figure["place"]].append(figure["microseconds"] / 1e6)
    return results


def print_table(results):
    print("| median, s | share | guest's own disk | ratio |")
    print("|---|---|---|---|")
    for tool, places in results.items():
        share, own = (statistics.median(places[place]) for place in ("share", "own"))
        print(f"| {tool} | {share:.3f} | {own:.3f} | {share / own:.2f} |")
