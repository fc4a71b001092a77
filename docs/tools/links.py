"""A hook of mkdocs: the site stands alone, also where a page links to a file of the repository outside docs/.

Such a file is copied into the site, under repository/; `METHODS 2.3` becomes a link to docs/methods.md; and the pages
below reference/ are made from the code.
"""

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads a hook by its path alone

import reference

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<=\]\()((?:\.\./)+[^)#\s]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^```.*?^```[^\n]*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
CITATION = re.compile(r"METHODS (D\d+|18\.2\.\d|3\.3\.\d)(?!\w)|METHODS (\d+(?:\.\d+)*)(?!\w)")


def target_of(link: str, page: str) -> str:
    """Where the relative `link` of `page` leads, from the root of the repository ("docs/recipes.md")."""
    return posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages made from code, and every file outside docs/ that a page links to."""
    for name, text in reference.pages().items():
        files.append(File.generated(config, name, content=text))
    for page in list(files.documentation_pages()):
        for link, _ in LINK.findall(page.content_string):
            target = target_of(link, page.src_uri)
            if not target.startswith("docs/"):
                _add(files, config, target, page.src_uri)
    return files


def _add(files: Files, config: MkDocsConfig, target: str, page: str) -> None:
    path = ROOT / target
    if not path.exists():
        raise PluginError(f"{page} links to {target}, which does not exist")
    for one in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        uri = f"repository/{one.relative_to(ROOT).as_posix()}" + (".txt" if one.suffix == ".md" else "")
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, content=one.read_bytes()))
    if path.is_dir():
        listing = "\n".join(sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()))
        files.append(File.generated(config, f"repository/{target}/index.txt", content=listing))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links out of docs/ at the copies, and citations at the methods page."""
    def moved(match: re.Match[str]) -> str:
        target = target_of(match[1], page.file.src_uri)
        if target.startswith("docs/"):
            return match[0]
        end = "/index.txt" if (ROOT / target).is_dir() else ".txt" if target.endswith(".md") else ""
        return posixpath.relpath(f"repository/{target}{end}", posixpath.dirname(page.file.src_uri) or ".")

    def cited(match: re.Match[str]) -> str:
        place = match[1] or match[2]
        anchor = place if match[1] else _anchor_of(place)
        methods = posixpath.relpath("methods.md", posixpath.dirname(page.file.src_uri) or ".")
        return f"[METHODS {place}]({methods}#{anchor})"

    text = LINK.sub(moved, markdown)
    return text if page.file.src_uri == "methods.md" else _outside_code(CITATION, cited, text)


def _anchor_of(number: str) -> str:
    """The anchor that mkdocs gives the heading `number` of docs/methods.md."""
    from markdown.extensions.toc import slugify  # noqa: PLC0415 -- used by few pages

    page = (ROOT / "docs" / "methods.md").read_text()
    heading = re.search(rf"^#+ ({re.escape(number)}\.? .*)$", page, flags=re.MULTILINE)
    if heading is None:
        raise PluginError(f"METHODS {number} is no heading of docs/methods.md")
    return slugify(heading[1], "-")


def _outside_code(pattern: re.Pattern[str], replace: object, text: str) -> str:
    """`pattern.sub(replace, text)`, but for code blocks and code spans."""
    parts, position = [], 0
    for code in FENCE.finditer(text):
        parts += [pattern.sub(replace, text[position : code.start()]), code[0]]
        position = code.end()
    return "".join([*parts, pattern.sub(replace, text[position:])])
