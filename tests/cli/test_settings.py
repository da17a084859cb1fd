"""What is wrong with tapefs.toml is said in words: which section and key, and what may stand there."""

from __future__ import annotations

import msgspec
import pytest

from tapefs.settings.whole import Settings
from tapefs.settings.wording import in_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour = 1", "there is no key or section `colour`; there are `format`, `library`,"),
        ("[libary]", "there is no key or section `libary`; did you mean `library`?"),
        ("[library]\ncolour = 1", "[library] has no key `colour`; there are `driver`,"),
        ("[library]\ndrive = 1", "[library] has no key `drive`; did you mean `drives`?"),
        ("[library.iscsi]\npatience_s = -1", "[library.iscsi] patience_s: must be at least 0.0, and is -1"),
        ("library = 3", "`library` is a section: write [library] on a line of its own"),
        ("[backup]\nblock_size = '9'", "[backup] block_size: must be a whole number, and is a text in quotes"),
        ("[backup]\nblock_size = 12", "[backup] block_size: must be at least 4096, and is 12"),
        ("[backup]\nframe_bytes = 65537", "[backup] frame_bytes: must be a multiple of 512, and is 65537"),
        ("[backup]\ngzip_engine = 'q'", "[backup] gzip_engine: 'q' is none of `auto`, `pgzip`"),
        ("[[access.issuers]]\nissuer = 'x'", "[[access.issuers]] number 1 lacks the key `audience`"),
        ("[[notify]]\nname = 'a'\nphones = ['']", "[[notify]] number 1, phones, entry 1: must not be empty"),
        ("[[notify]]\nname = 'a'\n[[notify]]\nurl = 'x'", "channel a needs either `url` or `url_file`"),
        ("[[notify]]\nname = 'a'\nurl = 'x'\n[[notify]]\nurl = 'x'", "[[notify]] number 2 lacks the key `name`"),
        ("[[notify]]\nname = 'Ü'", "[[notify]] number 1, name: must match the regular expression"),
        ("[notify]\nname = 'a'", "notify: there may be several, so write its name in two pairs of brackets"),
        ("[http]\ntls_key = 'x'", "[http]: tls_certificate and tls_key go together"),
        ("[http]\nproxies = [1]", "[http] proxies, entry 1: must be a text in quotes, and is a whole number"),
        ("[library]\ndrives = []", "[library] drives: must not be empty"),
        ("[hooks.a]\nc = 1", "[hooks.NAME] has no key `c`; there are `argv`,"),
    ],
)
def test_words(text: str, words: str) -> None:
    raw = msgspec.toml.decode(f"format = 1\n{text}\n")
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(raw, Settings)
    told = in_words(caught.value, raw, Settings)
    assert words in told
    assert "$" not in told


def test_a_secret_is_not_repeated() -> None:
    raw = {"format": 1, "notify": [{"name": "a", "url": "x", "secret": "hunter2", "phones": "hunter2"}]}
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(raw, Settings)
    assert "hunter2" not in in_words(caught.value, raw, Settings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"format = 1\n[", "tapefs.toml is no TOML: "),
        (b"format = 1\n# \xff\n", "tapefs.toml, line 2: this is not UTF-8"),
        (b"format = 1\n[library]\ncolour = 1\n", "tapefs.toml: [library] has no key `colour`"),
        (b"format = 1\n[library]\ndriver = 'iscsi'\n", "tapefs.toml: "),
    ],
)
def test_a_command_says_so_in_a_line(tapefs, home, text, words) -> None:
    (home.path / "tapefs.toml").write_bytes(text)
    outcome = tapefs("sets")
    assert outcome.code == 1
    assert f"{home.path}/{words}" in outcome.one_line()
