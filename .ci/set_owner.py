"""Where the repository lives, written once: settings.ini (user, repo, branch). This tool carries it to where it must stand literally.

python .ci/set_owner.py           rewrites badges, install cells, links and the README
python .ci/set_owner.py --check   changes nothing; exit status 1 when a file says something else than settings.ini

To move the repository: edit user (or repo, or branch) in settings.ini, run this, commit. Files: every notebook, README.md, CITATION.cff,
.github/*.md and what nbdev exports. What counts as the old place is what badges, install cells and
CITATION.cff say now.
"""
import argparse
import re
import sys
from configparser import ConfigParser
from pathlib import Path

PLACES = ("nbs/**/*.ipynb", "README.md", "CITATION.cff", ".github/*.md", "nanodetr/**/*.py")
HOSTS = ("github.com", "colab.research.google.com/github", "raw.githubusercontent.com")
END = r"(?![\w-]|\.\w)"
# addresses that are the repository's own, wherever they stand
NAME = r"([\w-]+(?:\.[\w-]+)*?)(?=\.git\b|\.?(?:[^\w.-]|$))"  # of a repository: dots inside, but neither .git nor a full stop
OWN = re.compile(r"colab\.research\.google\.com/github/([\w.-]+)/([\w.-]+)/blob/|"
                 rf"git\+https://github\.com/([\w.-]+)/{NAME}|repository-code: \"https://github\.com/([\w.-]+)/{NAME}")
BRANCH = re.compile(r"colab\.research\.google\.com/github/[\w.-]+/[\w.-]+/blob/([\w./-]+?)/nbs/")


def settings(root: Path) -> tuple:
    "(user, repo, branch) of settings.ini."
    config = ConfigParser(delimiters=["="])
    config.read(root / "settings.ini", encoding="utf-8")
    return tuple(config["DEFAULT"][key] for key in ("user", "repo", "branch"))


def named(texts) -> tuple:
    "Every (user, repo), and every branch, that the badges, the install cells and CITATION.cff name."
    own = {tuple(filter(None, found)) for text in texts for found in OWN.findall(text)}
    return own, {found for text in texts for found in BRANCH.findall(text)}


def move(text: str, old: tuple, new: tuple) -> str:
    "`text` with the repository `old` (user, repo) replaced by `new`."
    (user, repo), (to_user, to_repo) = old, new
    for host in HOSTS:
        text = re.sub(rf"(?<![\w.-])({re.escape(host)})/{re.escape(user)}/{re.escape(repo)}(\.git)?{END}",
                      rf"\g<1>/{to_user}/{to_repo}\g<2>", text)
    # the folder that a clone makes, the web site, and what nbdev notes of both
    text = re.sub(rf"({re.escape(to_user)}/{re.escape(to_repo)}(?:\.git)? && cd ){re.escape(repo)}{END}", rf"\g<1>{to_repo}", text)
    text = re.sub(rf"https://{re.escape(user)}\.github\.io(/{re.escape(repo)}{END})?",
                  lambda m: f"https://{to_user}.github.io" + (f"/{to_repo}" if m[1] else ""), text)
    return text.replace(f"'doc_baseurl': '/{repo}'", f"'doc_baseurl': '/{to_repo}'")


def switch(text: str, old: str, new: str, repository: str) -> str:
    "`text` with links into the branch `old` of the repository leading to `new`."
    text = re.sub(rf"({re.escape(repository)}/(?:blob|tree|raw)/){re.escape(old)}/", rf"\g<1>{new}/", text)
    return text.replace(f"'branch': '{old}'", f"'branch': '{new}'")


def changes(root: Path) -> dict:
    "{file: its new text} of the files that do not say what settings.ini says."
    files = {path: path.read_text(encoding="utf-8") for pattern in PLACES for path in sorted(root.glob(pattern))}
    user, repo, branch = settings(root)
    own, branches = named(files.values())
    changed = {}
    for path, text in files.items():
        after = text
        for old in sorted(own - {(user, repo)}): after = move(after, old, (user, repo))
        for old in sorted(branches - {branch}): after = switch(after, old, branch, f"{user}/{repo}")
        if after != text: changed[path] = after
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a file disagrees with settings.ini")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent, help=argparse.SUPPRESS)
    args = parser.parse_args()
    changed, (user, repo, branch) = changes(args.root), settings(args.root)
    for path, text in changed.items():
        name = path.relative_to(args.root)
        if args.check: print(f"{name}: names another repository than settings.ini, {user}/{repo}, branch {branch}: run `python .ci/set_owner.py`", file=sys.stderr)
        else: path.write_text(text, encoding="utf-8", newline="\n")
    if not args.check: print(f"{len(changed)} files changed, all now say {user}/{repo}, branch {branch}")
    return int(args.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
