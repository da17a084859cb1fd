"""What runs inside the guest: the shell functions that give a job its tape drive, and the tests (`inside_*.py`).

The host's pytest does not collect those; `selection` gives the command that runs them in there. They are started
without this project's conftest and without plugins: those would take five seconds there, pytest itself takes one.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
SHELL = (HERE / "shell.sh").read_text()


def selection(*names: str, arguments: str = "") -> str:
    """Return the line of a job that runs the tests in `inside_NAME.py` of all names; `arguments` go to pytest."""
    files = " ".join(f'"$PROJECT"/{_relative(f"inside_{name}.py")}' for name in names)
    return (
        'PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 "$PROJECT"/.venv/bin/python -m pytest'
        f' -c "$PROJECT"/{_relative("pytest.ini")} --rootdir "$PROJECT" --noconftest'
        f" {files} {arguments}"
    )


def attached(cartridge_bytes: int) -> str:
    """Return the lines of a job that attach a virtual library to the guest's kernel, see serve_library.py."""
    return f"load_tape_modules\nserve_library {cartridge_bytes}\nattach\n"


def product(cartridge_bytes: int, tapes: int = 2, how: str = "attach") -> str:
    """Return the lines of a job for the product: a library on the machine's disk is attached; see product.sh.

    `how`: by which of the functions in shell.sh.
    """
    begin = "use_disk\nload_tape_modules\nbusybox modprobe fuse\nLIBRARY=/disk/library\n"
    return f"{begin}serve_library {cartridge_bytes} {tapes}\n{how}\n{script('product')}\n"


def script(name: str) -> str:
    """Return the lines of NAME.sh, for a job."""
    return (HERE / f"{name}.sh").read_text()


def _relative(name: str) -> Path:
    return (HERE / name).relative_to(HERE.parents[3])
