"""Exclude patterns: as git decides, as absolute paths, for names of any bytes, and quick."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tapefs.backup.patterns import BadPattern, Patterns, parse

#: Of the comparison with git: more of them (3,000 take a minute) with TAPEFS_EXAMPLES.
EXAMPLES = int(os.environ.get("TAPEFS_EXAMPLES", "150"))
#: Nothing of this machine's git, and of a git that runs these tests as a hook.
OWN = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
PARTS = ["a", "b", "ab", "*", "a*", "*b", "?", "[ab]", "[!a]", "**", "\\a", "a.b", "*.b", "[[:alpha:]]", "[a-c]?"]
#: Stars in a row within a name are drawn as one, see `test_stars_within_a_name_are_not_as_in_git`.
ODD = st.text(alphabet="ab*?[]!^-\\:. ", min_size=1, max_size=7).map(lambda text: re.sub(r"\*{2,}", "*", text))
NAMED = ("alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "xdigit")
MEMBERS = ["a", "b", "]", "[", "!", "-", "\\]", "\\\\", ":", "[:", ":]", "a-b", "+--", "!-a", "]-a", "a-\\b"]
CLASSES = st.tuples(
    st.sampled_from(["[", "a[", "*[", "?["]),
    st.sampled_from(["", "!", "^"]),
    st.lists(st.sampled_from([*MEMBERS, *(f"[:{name}:]" for name in NAMED)]), min_size=1, max_size=3).map("".join),
    st.sampled_from(["]", "]b", "]*"]),
).map("".join)
LINES = st.tuples(
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "/"]),
    st.lists(st.sampled_from(PARTS) | st.just("***") | CLASSES | ODD, min_size=1, max_size=3).map("/".join),
    st.sampled_from(["", "/"]),
    st.sampled_from(["", "", "", " ", "  ", "\\ ", "\\  ", "\t"]),
).map("".join)
NAMES = ("a", "b", "ab", "a.b", "c\n", ".b")
ODD_NAMES = (*"[]-!^:\\ Z7\x0b\x7f*#", "a ", "b\t", "a]", "a[b", "a-b")


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A repository with paths of three levels: directories everywhere, files at the end and those of odd names."""
    root = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "-q", root], check=True, env=OWN)
    for one in NAMES[:4]:
        for two in NAMES[:4]:
            (root / one / two / "b").mkdir(parents=True)
            for name in ("a", "a.b", "c\n", ".b"):
                (root / one / two / name).touch()
        (root / one / "c\n").touch()
    for name in ODD_NAMES:
        (root / name).touch()
        (root / "a" / name).mkdir()
        (root / "a" / name / "b").touch()
    return root


@pytest.fixture(scope="module")
def paths(repository) -> list[bytes]:
    """All that is in the repository, relative to it."""
    found = [os.fsencode(path.relative_to(repository)) for path in repository.rglob("*")]
    return [path for path in found if not path.startswith(b".git")]


def ignored(repository: Path, lines: list[str], paths: list[bytes]) -> set[bytes]:
    """Which of the paths git ignores, by these lines alone: those in an ignored directory are."""
    (repository / ".gitignore").write_text("\n".join(lines) + "\n")
    git = ["git", "-c", "core.excludesFile=/dev/null", "-C", repository]
    git += ["check-ignore", "-z", "--stdin", "--no-index"]
    # With "./", for a path that begins with a colon says more to git.
    asked = b"\0".join(b"./" + path for path in paths)
    answer = subprocess.run(git, input=asked, capture_output=True, check=False, env=OWN)
    assert answer.returncode in (0, 1), answer.stderr
    return {path.removeprefix(b"./") for path in answer.stdout.split(b"\0") if path}


def left_out(repository: Path, lines: list[str], paths: list[bytes]) -> set[bytes]:
    """Which of the paths a backup leaves out."""
    ours = set(walked(repository, Patterns(lines, [(os.fsencode(repository),) * 2])))
    return {path for path in paths if any(path == each or path.startswith(each + b"/") for each in ours)}


def walked(root: Path, match: Patterns) -> Iterator[bytes]:
    """What is excluded, as a walk meets it: nothing of what is inside."""
    stack = [b""]
    while stack:
        place = stack.pop()
        is_excluded = match.within(os.fsencode(root) + place)
        for entry in os.scandir(os.fsencode(root) + place):
            if entry.name == b".git" or entry.name == b".gitignore":
                continue
            is_directory = entry.is_dir(follow_symlinks=False)
            path = place + b"/" + entry.name
            if is_excluded is not None and is_excluded(entry.name, is_directory):
                yield path[1:]
            elif is_directory:
                stack.append(path)


def is_pattern(line: str) -> bool:
    """Is it none that we refuse, and none that .gitignore has no place for?"""
    try:
        parse(line)
    except BadPattern:
        return False
    return not line.startswith("#")


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is the judge here")


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(lines=st.lists(LINES.filter(is_pattern), min_size=1, max_size=4))
@example(lines=["*", "!*/", "!*.b"])
@example(lines=["*.b", "!ab/"])
@example(lines=["/a/**", "!/a/b"])
@example(lines=["/a/*", "!/a/b", "*.b"])
@example(lines=["a/**/b", "**/a/", "!**"])
@example(lines=["a", "/*/**"])
@example(lines=["a", "!/**"])
@example(lines=["b/", "!/**/"])
@example(lines=["***/a"])
@example(lines=["/a/***"])
@example(lines=["[[:a]"])
@example(lines=["[[:space:]]"])
@example(lines=["?[[:b]-]b:]"])
@needs_git
def test_the_same_is_excluded_as_by_git(repository, paths, lines):
    """Directories that are left out take all with them, there and here."""
    assert left_out(repository, lines, paths) == ignored(repository, lines, paths)


@needs_git
def test_stars_within_a_name_are_not_as_in_git(repository, paths):
    """gitignore(5) has them as one star. Git itself, behind a plain name, has them match slashes and end the name."""
    assert left_out(repository, ["/a**/b"], paths) == left_out(repository, ["/a*/b"], paths)
    assert left_out(repository, ["*b**"], paths) == ignored(repository, ["*b*"], paths)
    assert left_out(repository, ["/?**/b"], paths) == ignored(repository, ["/?*/b"], paths)


def excluded(patterns: list[str], source: str, path: str, *, is_directory: bool = False, asked: str = "") -> bool:
    """Is `path` or one of its parents below the source excluded?"""
    match = Patterns(patterns, [(os.fsencode(asked or source), os.fsencode(source))])
    place, rest = os.fsencode(source).rstrip(b"/"), os.fsencode(path)[len(os.fsencode(source).rstrip(b"/")) + 1 :]
    parts = rest.split(b"/")
    for number, name in enumerate(parts):
        decide = match.within(place)
        if decide is not None and decide(name, is_directory or number + 1 < len(parts)):
            return True
        place += b"/" + name
    return False


@pytest.mark.parametrize(
    ("pattern", "source", "path", "expected"),
    [
        ("*.o", "/srv", "/srv/a/b.o", True),
        ("*.o", "/srv", "/srv/a.o/b", True),
        ("/build", "/srv", "/srv/build/x", True),
        ("/build", "/srv", "/srv/a/build", False),
        ("/srv/build", "/srv", "/srv/build", True),
        ("/srv/*/build", "/srv", "/srv/a/build", True),
        ("/srv/*/build", "/srv", "/srv/srv/a/build", False),
        ("/*/build", "/srv", "/srv/build", False),
        ("/*/build", "/srv", "/srv/a/build", True),
        ("/home/*/.cache", "/home/me", "/home/me/.cache", True),
        ("/home/**/.cache", "/home/me", "/home/me/a/.cache", True),
        ("/home/me", "/home/me", "/home/me/x", False),
        ("/home/you/x", "/home/me", "/home/me/x", False),
        ("/etc/fstab", "/", "/etc/fstab", True),
        ("etc/fstab", "/", "/etc/fstab", True),
        ("etc/fstab", "/", "/a/etc/fstab", False),
        ("#a#", "/s", "/s/#a#", True),
        ("a b ", "/s", "/s/a b", True),
        ("a\\ ", "/s", "/s/a ", True),
        ("*.o", "/s", "/s/a.o\n", False),
        ("?.o", "/s", "/s/\udcff.o", True),
        ("ä?", "/s", "/s/äö", True),
        ("A", "/s", "/s/a", False),
    ],
)
def test_paths(pattern, source, path, expected):
    assert excluded([pattern], source, path) is expected


def test_absolute_for_one_source_is_nothing_for_the_others():
    """`/srv/tmp` names a place; a `srv/tmp` below another source is not meant."""
    match = Patterns(["/srv/tmp"], [(b"/srv", b"/srv"), (b"/home", b"/home")])
    inside = match.within(b"/srv")
    assert inside is not None
    assert inside(b"tmp", True)
    assert match.within(b"/home/srv") is None
    assert match.within(b"/srv/srv") is None


def test_an_absolute_pattern_as_the_source_was_named():
    """The walk meets /data/home, for /home is a link to it."""
    assert excluded(["/home/me/tmp"], "/data/home", "/data/home/me/tmp", asked="/home")
    assert excluded(["/data/home/me/tmp"], "/data/home", "/data/home/me/tmp", asked="/home")


def test_sources_within_others_count_as_the_outer_one():
    match = Patterns(["/tmp"], [(b"/srv", b"/srv"), (b"/srv/a", b"/srv/a")])
    assert match.within(b"/srv/a") is None
    inside = match.within(b"/srv")
    assert inside is not None
    assert inside(b"tmp", True)


@pytest.mark.parametrize("pattern", ["", " ", "/", "//", "!", "!/", "a\\", "[a", "[", "a[!", "[[:odd:]]", "[b-a]"])
def test_what_can_match_nothing_is_refused(pattern):
    with pytest.raises(BadPattern):
        parse(pattern)


@given(st.text(alphabet="ab*?[]!^-\\/. :\n\udcff", min_size=1, max_size=12))
def test_any_text_is_a_pattern_or_refused(text):
    try:
        match = Patterns([text, "x"]).within(b"")
    except BadPattern:
        return
    assert match is not None
    match(b"a\xff\n", False)


def test_130000_names_in_a_fifth_of_a_second():
    """Processor time, and the best of three: others work on this machine."""
    patterns = ["*.o", "*.tmp", "cache/", "node_modules", "/share/d1/*.txt", "doc/*.pdf", "**/x?", "a/**/b*c"]
    names = [(b"/usr/share/d%d" % (number // 13), b"file-%d.txt" % number) for number in range(130_000)]
    spent_s = []
    for _ in range(3):
        match, began_s, last, decide = Patterns(patterns, [(b"/usr", b"/usr")]), time.thread_time(), b"", None
        for directory, name in names:
            if directory != last:
                decide, last = match.within(directory), directory
            assert decide is not None
            decide(name, False)
        spent_s.append(time.thread_time() - began_s)
    assert min(spent_s) < 0.2
