"""Searching names: millions of generated distinct ones in one set, beside grep, and plocate where it is installed.

    .venv/bin/python -m tapefs.bench.find [NAMES]

Times are of the processor, best of three: all of this is computing, and a busy machine should not look like a slow one.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import process_time

from catalog.ids import DirectoryNo, EntryNo, SetId
from catalog.index.model import Directory, Entry
from catalog.index.writer import IndexWriter
from catalog.names.builder import build_names
from catalog.names.reader import NamesReader
from tapefs.search.patterns import NamePattern, search_block

_SET = SetId("00000000-0000-4000-8000-000000000001")
_PER_DIRECTORY = 1000
_RUNS = 3
#: What is asked, the pattern, whether without case, and the same for grep.
_QUESTIONS = (
    ("a whole name", "IMG_20190704_1522.JPG", False, r"^IMG_20190704_1522\.JPG$"),
    ("a rare literal", "*quarterly*7731*", False, "quarterly.*7731"),
    ("a literal, a 60th of all", "*.pdf", False, r"\.pdf$"),
    ("without case", "*QUARTERLY*7731*", True, "quarterly.*7731"),
    ("classes, no literal", "[0-9]*[0-9][xyz][0-9]", False, "^[0-9].*[0-9][xyz][0-9]$"),
    ("no literal", "????????", False, "^........$"),
)
_WORDS = """
    report draft final quarterly invoice letter budget photo scan meeting minutes index main test data model config
    parser util base core client server handler schema table query cache image thumb backup archive old new copy
    chapter notes project plan summary contract offer list map plot result sample run log trace session user group
""".split()  # noqa: SIM905 -- as a list a line each
_ENDINGS = "pdf docx xlsx txt html css js py c h o so java class json xml yaml png gif mp4 wav zip gz md csv".split()  # noqa: SIM905


def main() -> None:
    """Print one line per measurement."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000_000
    with TemporaryDirectory() as name:
        folder = Path(name)
        names = sorted(set(_generate(count)))
        (folder / "plain").write_bytes(b"".join(each + b"\n" for each in names))
        _write_index(folder / "index.lmdb", names)
        total, plain_bytes = len(names), (folder / "plain").stat().st_size
        del names
        began_s = process_time()
        build_names(folder / "index.lmdb", folder / "names")
        seconds = process_time() - began_s
        stored_bytes = (folder / "names").stat().st_size
        print(
            f"{total:,} names of {plain_bytes / total - 1:.1f} bytes: {stored_bytes / total:.2f} bytes a name with the"
            f" entries' numbers, made in {seconds / total * 1e6:.2f} us a name"
        )
        subprocess.run(["zstd", "-q", "-3", str(folder / "plain")], check=True)
        _measure(folder, total)


def _measure(folder: Path, total: int) -> None:
    """Print the questions, and how many millions of names a second of one core each program looks through."""
    plocate = _plocate_database(folder)
    print(f"{'million names/s':<28} {'tapefs':>8} {'grep':>8} {'zstd|grep':>10} {'plocate':>8} {'found':>10}")
    for what, pattern, ignore_case, expression in _QUESTIONS:
        compiled = NamePattern(pattern, ignore_case=ignore_case)
        found, ours_s = _best(lambda compiled=compiled: _search(folder / "names", compiled))  # type: ignore[misc]
        options = ["-c", "-i"] if ignore_case else ["-c"]
        grep = ["grep", *options, expression]
        counted, grep_s = _best(lambda grep=grep: _run([*grep, str(folder / "plain")]))  # type: ignore[misc]
        piped = f"zstd -dc {folder}/plain.zst | grep {' '.join(options)} '{expression}'"
        _, zstd_s = _best(lambda piped=piped: _run(["sh", "-c", piped]))  # type: ignore[misc]
        if counted != found:
            raise SystemExit(f"{what}: we find {found}, grep {counted}")
        located = "-"
        if plocate is not None:
            # It has an index of three letters each, and takes globs as we do.
            located_s = _best(lambda ask=[*plocate, *options, pattern]: _run(ask))[1]  # type: ignore[misc]
            located = f"{total / located_s / 1e6:.1f}"
        speeds = [f"{total / seconds / 1e6:.1f}" for seconds in (ours_s, grep_s, zstd_s)]
        print(f"{what:<28} {speeds[0]:>8} {speeds[1]:>8} {speeds[2]:>10} {located:>8} {found:>10,}")


def _search(path: Path, pattern: NamePattern) -> int:
    """Look through all names; of those found also look up entry and directory."""
    reader = NamesReader(path)
    found = 0
    for number in reader.blocks_with(pattern.prefix):
        block = reader.block(number)
        for ordinal, _ in search_block([pattern], block.text):
            for entry in block.numbers(ordinal):
                reader.run_of(entry)
                found += 1
    reader.close()
    return found


def _plocate_database(folder: Path) -> list[str] | None:
    """Return how to ask plocate, None where it is not installed."""
    build, program = shutil.which("plocate-build"), shutil.which("plocate")
    if build is None or program is None:
        return None
    subprocess.run([build, "-p", "-l", "no", str(folder / "plain"), str(folder / "plocate.db")], check=True)
    return [program, "-d", str(folder / "plocate.db")]


def _run(command: list[str]) -> int:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    return int(done.stdout)


def _best(work: Callable[[], int]) -> tuple[int, float]:
    """Return what it returns, and the processor time of the best run, children included."""
    times = []
    found = 0
    for _ in range(_RUNS):
        began_s = _used_s()
        found = work()
        times.append(_used_s() - began_s)
    return found, min(times)


def _used_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return process_time() + children.ru_utime + children.ru_stime


def _generate(count: int) -> Iterator[bytes]:
    """Yield names as cameras, offices, programs and caches give them; some come twice."""
    random = Random(1)  # noqa: S311 -- not for secrets
    for _ in range(count):
        kind = random.random()
        word, other, number = random.choice(_WORDS), random.choice(_WORDS), random.randrange(10**6)
        ending = random.choice(_ENDINGS)
        if kind < 0.25:
            name = (
                f"IMG_20{random.randrange(5, 26):02}{number % 12 + 1:02}{number % 28 + 1:02}_{number % 10_000:04}.JPG"
            )
        elif kind < 0.45:
            name = f"{word}_{other}_{number}.{ending}"
        elif kind < 0.6:
            name = f"{word.capitalize()} {other} {number % 2000} ({number % 31}).{ending}"
        elif kind < 0.75:
            name = f"{random.getrandbits(128):032x}"
        elif kind < 0.85:
            name = f"{number}x{random.randrange(1000)}"
        elif kind < 0.95:
            name = f"lib{word}-{other}.so.{number % 20}.{number % 7}.{number}"
        else:
            name = f"{word}-größe-{number}.{ending}"
        yield name.encode()


def _write_index(path: Path, names: list[bytes]) -> None:
    """Write a set whose directories hold a thousand of the names each, drawn from all of them."""
    order = list(range(len(names)))
    Random(2).shuffle(order)  # noqa: S311 -- not for secrets
    with IndexWriter(path, _SET) as writer:
        folders = range(1, -(-len(names) // _PER_DIRECTORY) + 1)
        for number in folders:
            chosen = sorted(names[place] for place in order[(number - 1) * _PER_DIRECTORY : number * _PER_DIRECTORY])
            first = writer.add_entries([_entry(name, 0o100644, 0) for name in chosen])
            writer.add_directory(_directory(number, first, len(chosen), EntryNo(0), 0))
        first = writer.add_entries([_entry(b"d%09d" % number, 0o40755, number) for number in folders])
        writer.add_directory(_directory(0, EntryNo(0), 0, first, len(folders)))
        writer.finish()


def _entry(name: bytes, mode: int, offset: int) -> Entry:
    return Entry(name, mode, 0, 0, 0, 1_700_000_000_000_000_000, 0, 1, 0, 1, 2, 0, 0, 0, offset, b"")


def _directory(number: int, files: EntryNo, file_count: int, directories: EntryNo, count: int) -> Directory:
    return Directory(
        DirectoryNo(number), DirectoryNo(0), 0o40755, 0, 0, 0, 0, 0, 2, 1, 2, 0, files, file_count, directories, count
    )


if __name__ == "__main__":
    main()
