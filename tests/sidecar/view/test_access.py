"""Who may read what: by mode, by ACL (as the kernel itself decides), by role, by scope."""

from __future__ import annotations

import itertools
import os
import pwd
import subprocess
from pathlib import Path

import pytest

from sidecar.http.callers import NOBODY, Caller, Role
from sidecar.view.access import ACL_NAME, READ, SEARCH, Rights, covers, groups_of, may

DAEMON = pwd.getpwnam("daemon")
GAMES = pwd.getpwnam("games")


def as_user(uid: int | None, role: Role = Role.OPERATOR) -> Caller:
    return Caller("somebody", role, uid)


def test_admins_and_root_may_all() -> None:
    closed = Rights(0o100000, 7, 7)
    assert may(as_user(None, Role.ADMIN), closed, READ, is_imported=True)
    assert may(as_user(0), closed, READ, is_imported=True)


def test_nobody_in_particular_reads_nothing() -> None:
    for caller in (NOBODY, as_user(None), as_user(None, Role.VIEWER)):
        assert not may(caller, Rights(0o100777, 0, 0), READ, is_imported=False)


def test_numbers_of_other_installations_give_no_rights() -> None:
    assert may(as_user(DAEMON.pw_uid), Rights(0o100400, DAEMON.pw_uid, 0), READ, is_imported=False)
    assert not may(as_user(DAEMON.pw_uid), Rights(0o100444, DAEMON.pw_uid, 0), READ, is_imported=True)


def test_the_first_class_that_fits_decides() -> None:
    """An owner without the right is not helped by what others may."""
    assert not may(as_user(DAEMON.pw_uid), Rights(0o100077, DAEMON.pw_uid, 0), READ, is_imported=False)
    assert not may(as_user(DAEMON.pw_uid), Rights(0o100707, 0, DAEMON.pw_gid), READ, is_imported=False)
    assert may(as_user(DAEMON.pw_uid), Rights(0o100004, 0, 0), READ, is_imported=False)
    assert may(as_user(DAEMON.pw_uid), Rights(0o040001, 0, 0), SEARCH, is_imported=False)


def test_a_number_without_a_user_has_no_groups() -> None:
    assert groups_of(4_000_000) == frozenset()
    assert DAEMON.pw_gid in groups_of(DAEMON.pw_uid)


ACLS = (
    "u:daemon:r",
    "u:daemon:-",
    "u:daemon:r,m::-",
    "g:daemon:r",
    "g:daemon:-",
    "g:daemon:r,m::x",
    "u:games:r,g:daemon:-",
)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
@pytest.mark.parametrize("acl", ACLS)
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o044])
def test_acls_mean_what_the_kernel_says(tmp_path: Path, acl: str, mode: int) -> None:
    """Every user and group as owner; what access(2) says is right."""
    for each in (tmp_path, *itertools.takewhile(lambda folder: folder != Path("/"), tmp_path.parents)):
        if each.stat().st_uid == os.geteuid() and each != Path("/tmp"):
            each.chmod(each.stat().st_mode | 0o011)
    for owner, group in ((0, 0), (DAEMON.pw_uid, 0), (0, DAEMON.pw_gid), (0, GAMES.pw_gid)):
        file = tmp_path / f"{owner}-{group}"
        file.write_bytes(b"x")
        os.chown(file, owner, group)
        file.chmod(mode)
        subprocess.run(["setfacl", "-m", acl, str(file)], check=True)
        status = file.stat()
        rights = Rights(status.st_mode, owner, group, os.getxattr(file, ACL_NAME))
        for user in (DAEMON, GAMES):
            become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
            asked = subprocess.run([*become, "test", "-r", str(file)], check=False)
            is_right = may(as_user(user.pw_uid), rights, READ, is_imported=False)
            assert is_right == (asked.returncode == 0), (user.pw_name, owner, group)


@pytest.mark.parametrize(
    ("scope", "path", "fits"),
    [
        ("storage.read:/", "jobs/home", True),
        ("storage.read:/jobs/home", "jobs/home/latest/x", True),
        ("storage.read:/jobs/home/", "jobs/home", True),
        ("storage.read:/jobs/ho", "jobs/home", False),
        ("storage.read:/jobs/home", "jobs", False),
        ("storage.read:/jobs/../sets", "sets", False),
        ("storage.stage:/", "jobs/home", False),
        ("storage.read", "jobs/home", True),
    ],
)
def test_scopes_cover_whole_folders(scope: str, path: str, fits: bool) -> None:
    caller = Caller("fts", None, scopes=frozenset({scope}))
    assert covers(caller, "storage.read", path.encode()) is fits
