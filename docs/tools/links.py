"""A hook of mkdocs: the site stands alone, also where a page links to a file of the repository outside docs/.

Such a file is copied into the site, under repository/ (Markdown becomes a page); `METHODS 2.3` becomes a link to
docs/methods.md; and the pages below reference/ are made from the code.
"""

import posixpath
import re
import sys
from collections.abc import Callable
from pathlib import Path

from markdown.extensions.toc import slugify
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads a hook by its path alone

import reference

ROOT = Path(__file__).parents[2]
COPIES = "repository/"
ROOT_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(?=[)#])")
CODE = re.compile(r"^```.*?^```[^\n]*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
CITATION = re.compile(r"METHODS (D\d+|\d+(?:\.\d+)*)(?!\w)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages made from code, those of the root, and every file outside docs/ that a page links to."""
    for name, text in reference.pages().items():
        files.append(File.generated(config, name, content=text))
    for name in ROOT_PAGES:
        _copy(files, config, ROOT / name)
    for page in list(files.documentation_pages()):
        for link in LINK.findall(CODE.sub("", page.content_string)):
            path = ROOT / _target(link, page.src_uri)
            if not path.exists() and not path.is_relative_to(ROOT / "docs"):
                raise PluginError(f"{page.src_uri} links to {link}, which does not exist")
            if not path.is_relative_to(ROOT / "docs"):
                _copy(files, config, path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links out of docs/ at the copies, and citations at the methods page."""
    here = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        return _relative(_place(_target(match[1], here)), here)

    def cited(match: re.Match[str]) -> str:
        return f"[{match[0]}]({_relative('methods.md', here)}#{_anchor(match[1])})"

    text = _outside_code(LINK, moved, markdown)
    return text if here == "methods.md" else _outside_code(CITATION, cited, text)


def _target(link: str, page: str) -> str:
    """Where the relative `link` of `page` leads, from the root of the repository ("docs/recipes.md")."""
    source = page.removeprefix(COPIES) if page.startswith(COPIES) else f"docs/{page}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _place(target: str) -> str:
    """Where a file of the repository lies in the site's sources."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"{COPIES}{target}" + ("/index.txt" if (ROOT / target).is_dir() else "")


def _relative(place: str, page: str) -> str:
    return posixpath.relpath(place, posixpath.dirname(page) or ".")


def _copy(files: Files, config: MkDocsConfig, path: Path) -> None:
    """Add a file, or all files of a folder with a list of them."""
    inside = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    for one in inside:
        place = _place(one.relative_to(ROOT).as_posix())
        if files.get_file_from_path(place) is None:
            content = one.read_text() if one.suffix == ".md" else one.read_bytes()
            files.append(File.generated(config, place, content=content))
    if path.is_dir():
        listing = "\n".join(one.relative_to(path).as_posix() for one in inside)
        files.append(File.generated(config, _place(path.relative_to(ROOT).as_posix()), content=listing))


def _anchor(place: str) -> str:
    """The anchor of a citation on the methods page: its own, or the one that mkdocs gives its heading."""
    page = (ROOT / "docs" / "methods.md").read_text()
    if f'<a id="{place}">' in page:
        return place
    heading = re.search(rf"^#+ ({re.escape(place)}\.? .*)$", page, flags=re.MULTILINE)
    if heading is None:
        raise PluginError(f"METHODS {place} is no place of docs/methods.md")
    return slugify(heading[1], "-")


def _outside_code(pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str], text: str) -> str:
    """`pattern.sub(replace, text)`, but for code blocks and code spans."""
    parts, position = [], 0
    for code in CODE.finditer(text):
        parts += [pattern.sub(replace, text[position : code.start()]), code[0]]
        position = code.end()
    return "".join([*parts, pattern.sub(replace, text[position:])])
