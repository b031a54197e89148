"""A landmark's text from Markdown to HTML that a page may show to visitors.

markdown-it turns it into HTML and takes HTML in it as text; nh3 then lets the tags below through and nothing else.
Of links only their words are left, and of pictures nothing: a visitor's page is never left.
"""

from __future__ import annotations

import functools

import nh3
from markdown_it import MarkdownIt

_TAGS = {"p", "em", "strong", "ul", "ol", "li", "h2", "h3", "h4", "blockquote", "br", "code", "hr"}
_PARSER = MarkdownIt("commonmark", {"html": False})


@functools.lru_cache(maxsize=256)
def safe_html(markdown: str) -> str:
    """HTML of paragraphs, headings, lists, quotations and emphasis; headings begin at the second level."""
    html = _PARSER.render(markdown).replace("<h1>", "<h2>").replace("</h1>", "</h2>")
    return nh3.clean(html, tags=_TAGS, attributes={})
