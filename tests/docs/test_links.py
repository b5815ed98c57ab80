"""Every link leads somewhere. Nothing is fetched: of an address elsewhere only its form is judged."""

import posixpath
import re
import urllib.parse

import pages
import pytest

LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*$", re.MULTILINE)
AUTOLINK = re.compile(r"<(https?:[^>\s]+)>")
HOST = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}")


def links(page):
    text = pages.prose(page)
    # The text of a link may be code or broken over lines; only where it leads to counts.
    return [found[1] for pattern in (LINK, REFERENCE, AUTOLINK) for found in pattern.finditer(text)]


def problem_with(page, link):
    parts = urllib.parse.urlsplit(link)
    if parts.scheme or parts.netloc:
        well_formed = parts.scheme == "https" and HOST.fullmatch(parts.netloc) and re.fullmatch(r"[!-~]+", link)
        return None if well_formed else "is not a well-formed https address"
    path, _, anchor = link.partition("#")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), urllib.parse.unquote(path))) if path else page
    files = pages.tracked()
    if target not in files and not any(name.startswith(target + "/") for name in files):
        return "leads to no file of the repository"
    if anchor and anchor not in pages.anchors(target):
        return f"leads to no heading of {target}"
    return None


@pytest.mark.parametrize("page", pages.every_page())
def test_every_link_leads_somewhere(page):
    assert {link: problem for link in links(page) if (problem := problem_with(page, link))} == {}


def test_links_are_found_and_judged():
    """That the test above can fail."""
    assert sum(len(links(page)) for page in pages.every_page()) > 150
    for link in "nowhere.md", "replay.md#nowhere", "#nowhere", "http://example.com/", "https://", "https://exa mple.com", "ftp://example.com":
        assert problem_with("docs/README.md", link), link
    for link in "replay.md#replicas", "../deploy", "../README.md#your-own-envoy", "https://example.com/a#b":
        assert problem_with("docs/README.md", link) is None, link


@pytest.mark.parametrize("page", ["docs/README.md", "README.md"])
def test_every_page_is_listed(page):
    of_docs = [name for name in pages.every_page() if name.startswith("docs/") and name != page]
    led_to = {posixpath.normpath(posixpath.join(posixpath.dirname(page), link.partition("#")[0])) for link in links(page)}
    assert [name for name in of_docs if name not in led_to] == []
